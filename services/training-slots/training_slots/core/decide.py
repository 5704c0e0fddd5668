"""Claim, renew, release, expire: exclusive, fenced, expiring slots, handed over in the same decision."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta

from sparring.contracts.base import Fact
from sparring.contracts.training_slots import (
    ClaimQueued,
    ClaimSlot,
    ClaimWithdrawn,
    HoldLaneBack,
    LaneHeldBack,
    ReleaseSlot,
    RenewalRefused,
    RenewSlot,
    SlotClaimed,
    SlotExpired,
    SlotReleased,
    SlotRenewed,
)
from sparring.decider import Context
from training_slots.core.state import Pool, Waiting


def claim(order: ClaimSlot, pool: Pool, ctx: Context) -> list[Fact]:
    """Asking again while holding or waiting changes nothing."""
    if any(held.holder == order.holder for held in pool.held.values()):
        return []
    if any(waiting.holder == order.holder for waiting in pool.queue):
        return []
    limit = ctx.settings.slots
    expires_at = ctx.now + timedelta(seconds=ctx.settings.claim_expires_s)
    waiting = Waiting(order.lane, order.holder, order.priority, order.lease_s, ctx.now, expires_at)
    queued = replace(pool, queue=(*pool.queue, waiting))
    served = list(hand_over(queued, ctx.now, limit))
    if any(fact.holder == order.holder for fact in served):
        return [*served]
    held_by = tuple(held.holder for held in pool.held.values())
    return [
        ClaimQueued(
            lane=order.lane,
            holder=order.holder,
            priority=order.priority,
            lease_s=order.lease_s,
            held_by=held_by,
            limit=limit,
            expires_at=expires_at,
        )
    ]


def renew(order: RenewSlot, pool: Pool, ctx: Context) -> list[Fact]:
    """Extends the holder's lease. A lease never gets shorter; a stale token gets none."""
    held = pool.held.get(order.lane)
    if held is None or held.token != order.token:
        reason = "the slot is free" if held is None else f"the slot is held under token {held.token}"
        return [RenewalRefused(lane=order.lane, token=order.token, reason=reason)]
    until = ctx.now + timedelta(seconds=held.lease_s)
    return [SlotRenewed(lane=order.lane, token=order.token, until=until)] if until > held.until else []


def release(order: ReleaseSlot, pool: Pool, ctx: Context) -> list[Fact]:
    """Frees the slot and serves the next claim; a stale token frees nothing, token 0 withdraws a waiting claim."""
    if order.token == 0:
        if not any(waiting.holder == order.holder for waiting in pool.queue):
            return []
        return [ClaimWithdrawn(lane=order.lane, holder=order.holder, reason="released")]
    held = pool.held.get(order.lane)
    if held is None or held.token != order.token:
        return []
    freed = SlotReleased(lane=order.lane, token=order.token, held_s=max(0.0, (ctx.now - held.since).total_seconds()))
    return [freed, *hand_over(_free(pool, order.lane), ctx.now, ctx.settings.slots)]


def hold_back(order: HoldLaneBack, pool: Pool, ctx: Context) -> list[Fact]:
    until = ctx.now + timedelta(seconds=order.for_s)
    known = pool.held_back.get(order.lane)
    return (
        []
        if known is not None and known >= until
        else [LaneHeldBack(lane=order.lane, reason=order.reason, until=until)]
    )


def expire(pool: Pool, now: datetime, slots: int) -> list[Fact]:
    """Ends leases and claims whose time is over, and serves whose turn it is then."""
    facts: list[Fact] = []
    rest = pool
    for lane, held in sorted(pool.held.items()):
        if held.until <= now:
            facts.append(SlotExpired(lane=lane, token=held.token, holder=held.holder, reason="the lease ended"))
            rest = _free(rest, lane)
    for waiting in pool.queue:
        if waiting.expires_at <= now:
            facts.append(ClaimWithdrawn(lane=waiting.lane, holder=waiting.holder, reason="the claim expired"))
            rest = replace(rest, queue=tuple(one for one in rest.queue if one is not waiting))
    return [*facts, *hand_over(rest, now, slots)]


def hand_over(pool: Pool, now: datetime, slots: int) -> Iterator[SlotClaimed]:
    """Serves waiting claims while a slot is free: by priority, then the lane served longest ago, then the oldest."""
    held = set(pool.held)
    waiting = list(pool.queue)
    while len(held) < slots:
        ready = [one for one in waiting if one.lane not in held and pool.held_back.get(one.lane, now) <= now]
        if not ready:
            return
        turn = min(ready, key=lambda one: (-one.priority, pool.served.get(one.lane, 0), one.since, one.holder))
        waiting.remove(turn)
        held.add(turn.lane)
        yield SlotClaimed(
            lane=turn.lane,
            holder=turn.holder,
            until=now + timedelta(seconds=turn.lease_s),
            waited_s=max(0.0, (now - turn.since).total_seconds()),
            held=len(held),
            limit=slots,
        )


def _free(pool: Pool, lane: str) -> Pool:
    return replace(pool, held={name: one for name, one in pool.held.items() if name != lane})
