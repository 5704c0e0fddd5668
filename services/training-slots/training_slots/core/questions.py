"""What the pool of training slots can be asked: who trains, who waits and why, whether a lane may train now."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sparring.decider import Context
from training_slots.core.evolve import MAIN, POOL
from training_slots.core.state import Pool, Waiting
from training_slots.core.turns import position

HEARS = (POOL.ref(MAIN).pattern,)


@dataclass(frozen=True)
class Answer:
    """Whether the lane would get a slot now; `reason` names the first thing in the way, `until` when it ends by itself."""

    allowed: bool
    reason: str = ""
    actual: float = 0.0
    limit: float = 0.0
    until: datetime | None = None


@dataclass(frozen=True)
class Wait:
    """A claim in the queue: its place (0 is next), and what it waits for until when."""

    place: int
    lane: str
    holder: str
    priority: int
    since: datetime
    why: str
    until: datetime | None
    expires_at: datetime


def can_train(ctx: Context, *, lane: str) -> Answer:
    """Whether a claim for the lane would be served at once."""
    pool: Pool = ctx.picture.all.pool
    claim = Waiting(lane, "", 0, ctx.settings.lease_s, ctx.now, ctx.now, pool.newest)
    return in_the_way(pool, claim, ctx) or Answer(True)


def waits(ctx: Context) -> list[Wait]:
    """The queue in the order in which it will be served if nothing else changes."""
    pool: Pool = ctx.picture.all.pool
    found = []
    for claim in pool.queue:
        answer = in_the_way(pool, claim, ctx)
        found.append(
            Wait(
                position(pool, claim, ctx.now), claim.lane, claim.holder, claim.priority, claim.since,
                answer.reason if answer else "it is served next", answer.until if answer else None, claim.expires_at,
            )
        )  # fmt: skip
    return sorted(found, key=lambda one: (one.place, one.since))


def in_the_way(pool: Pool, claim: Waiting, ctx: Context) -> Answer | None:
    """The first thing that keeps the claim waiting."""
    held = pool.held.get(claim.lane)
    if held is not None:
        reason = f"the lane's slot is held by {held.holder} under token {held.token}"
        return Answer(False, reason, 1, 1, held.ends_at)
    rests = pool.rests_until(claim.lane, ctx.now)
    if rests is not None:
        factor, holds = pool.capacity(claim.lane, ctx.now), pool.holds.get(claim.lane, {})
        named = "; ".join(f"{cause}: {one.reason}" for cause, one in sorted(holds.items()) if ctx.now < one.until)
        verb = "is held back" if factor <= 0 else f"keeps {factor:.0%} of its turns"
        return Answer(False, f"the lane {verb} ({named})", factor, 1, rests)
    if len(pool.held) >= ctx.settings.slots:
        ends = min(one.ends_at for one in pool.held.values())
        lanes = ", ".join(sorted(pool.held))
        return Answer(False, f"all slots are held by {lanes}", len(pool.held), ctx.settings.slots, ends)
    ahead = position(pool, claim, ctx.now) if claim in pool.queue else 0
    free = ctx.settings.slots - len(pool.held)
    return Answer(False, "others are served first", ahead, free) if ahead >= free else None
