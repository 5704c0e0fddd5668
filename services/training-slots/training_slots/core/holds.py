"""Holding a lane back: a note, fewer turns, or a pause; with a reason, by cause, and never without an end."""

from __future__ import annotations

from datetime import timedelta

from sparring.contracts.base import Fact
from sparring.contracts.training_slots import (
    HoldBackLifted,
    HoldBackRefused,
    HoldLaneBack,
    LaneHeldBack,
    LiftHoldBack,
    Severity,
)
from sparring.decider import Context
from training_slots.core.state import Pool
from training_slots.core.turns import hand_over

FACTORS: dict[Severity, float] = {"minor": 1.0, "moderate": 0.8, "low_quality": 0.7, "severe": 0.0}


def hold_back(order: HoldLaneBack, pool: Pool, ctx: Context) -> list[Fact]:
    """Holds the lane back for the cause; a newer order replaces the cause's hold, an older one is refused."""
    newest = pool.revisions.get(f"{order.lane} {order.cause}", 0)
    if order.revision < newest:
        reason = f"revision {order.revision} is older than {newest}"
        return [_refused(order, reason, newest)]
    factor, until = FACTORS[order.severity], ctx.now + timedelta(seconds=order.for_s)
    known = pool.holds.get(order.lane, {}).get(order.cause)
    if known is not None and order.revision == newest and known.factor <= factor and known.until >= until:
        return []
    return [
        LaneHeldBack(
            lane=order.lane, reason=order.reason, until=until, cause=order.cause, severity=order.severity,
            factor=factor, by=order.by, revision=order.revision,
        )
    ]  # fmt: skip


def lift(order: LiftHoldBack, pool: Pool, ctx: Context) -> list[Fact]:
    """Ends a hold before its time, and serves whose turn it is then."""
    newest = pool.revisions.get(f"{order.lane} {order.cause}", 0)
    if order.revision < newest:
        return [_refused(order, f"revision {order.revision} is older than {newest}", newest)]
    holds = pool.holds.get(order.lane, {})
    if order.cause not in holds or ctx.now >= holds[order.cause].until:
        known = ", ".join(sorted(holds)) or "nothing"
        return [_refused(order, f"held back is {order.lane} for {known}", newest)]
    lifted = HoldBackLifted(
        lane=order.lane, cause=order.cause, by=order.by, reason=order.reason, revision=order.revision
    )
    rest = {name: one for name, one in holds.items() if name != order.cause}
    after = Pool(pool.held, pool.queue, pool.served, pool.holds | {order.lane: rest}, pool.revisions, pool.last)
    return [lifted, *hand_over(after, ctx.now, ctx.settings.slots)]


def _refused(order: HoldLaneBack | LiftHoldBack, reason: str, newest: int) -> HoldBackRefused:
    return HoldBackRefused(lane=order.lane, cause=order.cause, reason=reason, revision=order.revision, newest=newest)
