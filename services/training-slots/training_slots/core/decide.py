"""Claim, renew, release, preempt, expire: exclusive, fenced, expiring slots, handed over in the same decision."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from sparring.contracts.base import Fact
from sparring.contracts.training_slots import (
    ClaimQueued,
    ClaimSlot,
    ClaimWithdrawn,
    PreemptionAsked,
    PreemptionRefused,
    PreemptSlot,
    ReleaseSlot,
    RenewalRefused,
    RenewSlot,
    SlotExpired,
    SlotPreempted,
    SlotReleased,
    SlotRenewed,
)
from sparring.decider import Context, replace
from training_slots.core.state import Held, Pool, Served, Waiting
from training_slots.core.turns import hand_over


def claim(order: ClaimSlot, pool: Pool, ctx: Context) -> list[Fact]:
    """Asking again while holding or waiting changes nothing."""
    if any(held.holder == order.holder for held in pool.held.values()):
        return []
    if any(waiting.holder == order.holder for waiting in pool.queue):
        return []
    limit = ctx.settings.slots
    expires_at = ctx.now + timedelta(seconds=ctx.settings.claim_expires_s)
    waiting = Waiting(order.lane, order.holder, order.priority, order.lease_s, ctx.now, expires_at, pool.newest)
    served = hand_over(replace(pool, queue=(*pool.queue, waiting)), ctx.now, limit)
    if any(fact.holder == order.holder for fact in served):
        return [*served]
    held_by = tuple(held.holder for held in pool.held.values())
    queued = ClaimQueued(
        lane=order.lane, holder=order.holder, priority=order.priority, lease_s=order.lease_s, held_by=held_by,
        limit=limit, expires_at=expires_at,
    )  # fmt: skip
    return [queued, *served]


def renew(order: RenewSlot, pool: Pool, ctx: Context) -> list[Fact]:
    """Extends the holder's lease. A lease never gets shorter; a stale token gets none, a preempted one its grace."""
    held = pool.held.get(order.lane)
    if held is None or held.token != order.token:
        reason = "the slot is free" if held is None else f"the slot is held under token {held.token}"
        return [RenewalRefused(lane=order.lane, token=order.token, reason=reason)]
    until = ctx.now + timedelta(seconds=held.lease_s)
    if held.give_way_by is not None:
        until = min(until, held.give_way_by)
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
    return [
        _given_back(order.lane, held, ctx.now),
        *hand_over(_freed(pool, order.lane, ctx.now), ctx.now, ctx.settings.slots),
    ]


def _given_back(lane: str, held: Held, now: datetime) -> Fact:
    held_s = max(0.0, (now - held.since).total_seconds())
    if held.asked_at is not None:
        return SlotPreempted(lane=lane, token=held.token, holder=held.holder, held_s=held_s, gave_way=True)
    return SlotReleased(lane=lane, token=held.token, held_s=held_s)


def preempt(order: PreemptSlot, pool: Pool, ctx: Context) -> list[Fact]:
    """Asks the holder to write a checkpoint and give way; asked twice, the first grace time holds."""
    held = pool.held.get(order.lane)
    if held is None or (order.token is not None and order.token != held.token):
        reason = "nobody trains the lane" if held is None else f"the slot is held under token {held.token}"
        return [PreemptionRefused(lane=order.lane, by=order.by, reason=reason)]
    if held.asked_at is not None:
        return []
    grace_s = ctx.settings.grace_s if order.grace_s is None else order.grace_s
    return [
        PreemptionAsked(
            lane=order.lane, token=held.token, holder=held.holder, by=order.by, reason=order.reason, grace_s=grace_s,
            until=ctx.now + timedelta(seconds=grace_s),
        )
    ]  # fmt: skip


def expire(pool: Pool, now: datetime, slots: int, lost: Mapping[int, str] | None = None) -> list[Fact]:
    """Ends leases and claims whose time is over, and serves whose turn it is then.

    `lost` are tokens whose training ran on a node that is gone, with the reason: nobody will release them.
    """
    facts: list[Fact] = []
    rest = pool
    for lane, held in sorted(pool.held.items()):
        fact = _over(lane, held, now, (lost or {}).get(held.token, ""))
        if fact is not None:
            facts.append(fact)
            rest = _freed(rest, lane, now)
    for waiting in pool.queue:
        if waiting.expires_at <= now:
            facts.append(ClaimWithdrawn(lane=waiting.lane, holder=waiting.holder, reason="the claim expired"))
            rest = replace(rest, queue=tuple(one for one in rest.queue if one is not waiting))
    return [*facts, *hand_over(rest, now, slots)]


def _over(lane: str, held: Held, now: datetime, lost: str) -> Fact | None:
    if lost:
        return SlotExpired(lane=lane, token=held.token, holder=held.holder, reason=lost)
    if held.ends_at > now:
        return None
    if held.asked_at is not None:
        held_s = max(0.0, (now - held.since).total_seconds())
        return SlotPreempted(lane=lane, token=held.token, holder=held.holder, held_s=held_s, gave_way=False)
    return SlotExpired(lane=lane, token=held.token, holder=held.holder, reason="the lease ended")


def _freed(pool: Pool, lane: str, now: datetime) -> Pool:
    """The pool with the lane's slot free, as it will be once that is a fact: a lane held back rests from now on."""
    held_s = max(0.0, (now - pool.held[lane].since).total_seconds())
    return replace(pool.without(lane), last=pool.last | {lane: Served(now, held_s, pool.newest)})
