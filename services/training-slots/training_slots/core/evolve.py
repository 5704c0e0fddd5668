"""How each fact changes the pool."""

from __future__ import annotations

from dataclasses import replace

from sparring.contracts.training_slots import (
    ClaimQueued,
    ClaimWithdrawn,
    LaneHeldBack,
    SlotClaimed,
    SlotExpired,
    SlotReleased,
    SlotRenewed,
)
from sparring.decider import Decider, Recorded
from training_slots.core.state import Held, Pool, Waiting


def evolve(pool: Pool, recorded: Recorded) -> Pool:
    match recorded.fact:
        case SlotClaimed() as claimed:
            return _claimed(pool, claimed, recorded)
        case ClaimQueued() as queued:
            waiting = Waiting(
                queued.lane, queued.holder, queued.priority, queued.lease_s, recorded.at, queued.expires_at
            )
            return replace(pool, queue=(*without(pool, queued.holder), waiting))
        case ClaimWithdrawn(holder=holder):
            return replace(pool, queue=without(pool, holder))
        case SlotRenewed(lane=lane, until=until):
            return replace(pool, held=pool.held | {lane: replace(pool.held[lane], until=until)})
        case SlotReleased(lane=lane) | SlotExpired(lane=lane):
            return replace(pool, held={name: one for name, one in pool.held.items() if name != lane})
        case LaneHeldBack(lane=lane, until=until):
            return replace(pool, held_back=pool.held_back | {lane: until})
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


def without(pool: Pool, holder: str) -> tuple[Waiting, ...]:
    return tuple(one for one in pool.queue if one.holder != holder)


POOL = Decider("training-slots", "pool", Pool(), evolve)
MAIN = "main"
