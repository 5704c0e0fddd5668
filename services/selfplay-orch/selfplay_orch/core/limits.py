"""The guards: which seats of a node are taken, how many of a kind run in the cluster, how fast they may be spawned."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime

from sparring.contracts.base import Fact
from sparring.contracts.selfplay_orch import (
    BoostLane,
    BoostRefused,
    LaneBoosted,
    LaneSharesPlanned,
    SeatTaken,
    SpawnAdmitted,
    TaskDenied,
)
from sparring.decider import Context, Decider, Recorded


@dataclass(frozen=True)
class Seats:
    """Taken seats: `<task>-<attempt>` to kind. What ended is freed by the next placement: never too low a count."""

    taken: dict[str, str] = field(default_factory=dict)


def evolve_seats(seats: Seats, recorded: Recorded) -> Seats:
    match recorded.fact:
        case SeatTaken(task=task, kind=kind, freed=freed):
            return Seats({name: one for name, one in seats.taken.items() if name not in freed} | {task: kind})
    return seats


NODE = Decider("selfplay-orch", "node", Seats(), evolve_seats)


@dataclass(frozen=True)
class Quota:
    """Seats of one kind in the whole cluster, the spawns of the last minute, and the denials that stand."""

    running: dict[str, str] = field(default_factory=dict)
    spawned: tuple[datetime, ...] = ()
    denied: dict[str, str] = field(default_factory=dict)


def evolve_quota(quota: Quota, recorded: Recorded) -> Quota:
    match recorded.fact:
        case SpawnAdmitted(task=task, node=node, freed=freed):
            running = {name: one for name, one in quota.running.items() if name not in freed} | {task: node}
            recent = tuple(at for at in quota.spawned if (recorded.at - at).total_seconds() < 60)
            return Quota(running, (*recent, recorded.at), {})
        case TaskDenied(node=node, lane=lane, reason=reason):
            return replace(quota, denied=quota.denied | {f"{lane}@{node}": reason})
    return quota


QUOTA = Decider("selfplay-orch", "quota", Quota(), evolve_quota)


def spawn_rate_left(quota: Quota, now: datetime, per_minute: int) -> int:
    """Spawns that the rate still allows: at most `per_minute` in 60 s, and a sixth of that in 10 s."""
    minute = sum((now - at).total_seconds() < 60 for at in quota.spawned)
    burst = sum((now - at).total_seconds() < 10 for at in quota.spawned)
    return min(per_minute - minute, max(1, per_minute // 6) - burst)


@dataclass(frozen=True)
class Plan:
    shares: dict[str, float] = field(default_factory=dict)
    at: datetime | None = None


def evolve_plan(plan: Plan, recorded: Recorded) -> Plan:
    match recorded.fact:
        case LaneSharesPlanned(shares=shares):
            return Plan({one.lane: one.share for one in shares}, recorded.at)
    return plan


PLAN = Decider("selfplay-orch", "plan", Plan(), evolve_plan)


@dataclass(frozen=True)
class Boost:
    factor: float = 1.0
    until: datetime | None = None
    revision: int = 0


def evolve_boost(boost: Boost, recorded: Recorded) -> Boost:
    match recorded.fact:
        case LaneBoosted(factor=factor, until=until, revision=revision):
            return Boost(factor, until, revision)
    return boost


BOOST = Decider("selfplay-orch", "boost", Boost(), evolve_boost)


def boost(order: BoostLane, state: Boost, ctx: Context) -> list[Fact]:
    """An operator's boost, with an expiry; an order older than the newest is refused."""
    from datetime import timedelta

    if order.revision < state.revision:
        return [BoostRefused(lane=order.lane, revision=order.revision, newest=state.revision)]
    if order.revision == state.revision:
        return []
    until = ctx.now + timedelta(seconds=order.for_s)
    return [LaneBoosted(lane=order.lane, factor=order.factor, until=until, revision=order.revision, by=order.by)]
