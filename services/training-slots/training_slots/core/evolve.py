"""How each fact changes the pool."""

from __future__ import annotations

from sparring.contracts.training_slots import (
    ClaimQueued,
    ClaimWithdrawn,
    HoldBackLifted,
    LaneHeldBack,
    PreemptionAsked,
    SlotClaimed,
    SlotExpired,
    SlotPreempted,
    SlotReleased,
    SlotRenewed,
)
from sparring.decider import Decider, Recorded, replace
from training_slots.core.state import Held, Hold, Pool, Served, Waiting


def evolve(pool: Pool, recorded: Recorded) -> Pool:
    match recorded.fact:
        case SlotClaimed() as claimed:
            return _claimed(pool, claimed, recorded)
        case ClaimQueued() as queued:
            waiting = Waiting(
                queued.lane, queued.holder, queued.priority, queued.lease_s, recorded.at, queued.expires_at,
                recorded.sequence,
            )  # fmt: skip
            return replace(pool, queue=(*without(pool, queued.holder), waiting))
        case ClaimWithdrawn(holder=holder):
            return replace(pool, queue=without(pool, holder))
        case SlotRenewed(lane=lane, until=until):
            return replace(pool, held=pool.held | {lane: replace(pool.held[lane], until=until)})
        case PreemptionAsked(lane=lane, until=until):
            asked = replace(pool.held[lane], asked_at=recorded.at, give_way_by=until)
            return replace(pool, held=pool.held | {lane: asked})
        case SlotReleased(lane=lane) | SlotExpired(lane=lane) | SlotPreempted(lane=lane):
            return _ended(pool, lane, recorded)
        case LaneHeldBack(lane=lane, cause=cause) as fact:
            hold = Hold(fact.reason, fact.severity, fact.factor, fact.until, fact.by)
            return _held_back(pool, lane, pool.holds.get(lane, {}) | {cause: hold}, cause, fact.revision)
        case HoldBackLifted(lane=lane, cause=cause, revision=revision):
            rest = {name: one for name, one in pool.holds.get(lane, {}).items() if name != cause}
            return _held_back(pool, lane, rest, cause, revision)
    return pool


def _claimed(pool: Pool, claimed: SlotClaimed, recorded: Recorded) -> Pool:
    lease_s = (claimed.until - recorded.at).total_seconds()
    held = Held(claimed.holder, recorded.sequence, claimed.until, recorded.at, lease_s)
    return replace(
        pool,
        held=pool.held | {claimed.lane: held},
        queue=without(pool, claimed.holder),
        served=pool.served | {claimed.lane: recorded.sequence},
    )


def _ended(pool: Pool, lane: str, recorded: Recorded) -> Pool:
    held = pool.held.get(lane)
    if held is None:
        return pool
    served = Served(recorded.at, max(0.0, (recorded.at - held.since).total_seconds()), recorded.sequence)
    return replace(pool.without(lane), last=pool.last | {lane: served})


def _held_back(pool: Pool, lane: str, holds: dict[str, Hold], cause: str, revision: int) -> Pool:
    rest = {name: one for name, one in pool.holds.items() if name != lane}
    return replace(
        pool,
        holds=rest | {lane: holds} if holds else rest,
        revisions=pool.revisions | {f"{lane} {cause}": revision},
    )


def without(pool: Pool, holder: str) -> tuple[Waiting, ...]:
    return tuple(one for one in pool.queue if one.holder != holder)


POOL = Decider("training-slots", "pool", Pool(), evolve)
MAIN = "main"
