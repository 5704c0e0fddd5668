"""The guards: which seats of a node are taken, how many of a kind run in the cluster, how fast they may be spawned."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Annotated, Any
from zlib import crc32

from pydantic import BeforeValidator

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
from sparring.decider import Context, Decider, Recorded, replace

WINDOW_S, BURST_S = 60, 10


@dataclass(frozen=True)
class Seats:
    """Taken seats: `<task>-<attempt>` to kind. What ended is freed by the next placement: never too low a count."""

    taken: dict[str, str] = field(default_factory=dict)


def evolve_seats(seats: Seats, recorded: Recorded) -> Seats:
    match recorded.fact:
        case SeatTaken(task=task, kind=kind, freed=freed):
            return Seats(without(seats.taken, freed) | {task: kind})
    return seats


def without(taken: Mapping[str, str], freed: Collection[str]) -> dict[str, str]:
    gone = frozenset(freed)
    return {seat: what for seat, what in taken.items() if seat not in gone}


NODE = Decider("selfplay-orch", "node", Seats(), evolve_seats)


@dataclass(frozen=True)
class Standing:
    """A denial that was said; it stands until its reason changes."""

    reason: str
    at: datetime


def shard_of(seat: str) -> str:
    """Seats are kept in 256 parts, so that a change copies a part and not ten thousand seats."""
    return f"{crc32(seat.encode()) & 255:02x}"


def _in_shards(value: Any) -> Any:
    """A state carried by an earlier build holds seats without parts."""
    if not isinstance(value, dict) or all(isinstance(one, dict) for one in value.values()):
        return value
    parts: dict[str, dict[str, str]] = {}
    for seat, node in value.items():
        parts.setdefault(shard_of(seat), {})[seat] = node
    return parts


@dataclass(frozen=True)
class Quota:
    """Seats of one kind in the whole cluster (to their nodes, in parts), spawns per second of the last minute,
    denials."""

    running: Annotated[dict[str, dict[str, str]], BeforeValidator(_in_shards)] = field(default_factory=dict)
    spawned: tuple[tuple[int, int], ...] = ()
    denied: dict[str, Standing] = field(default_factory=dict)

    def __contains__(self, seat: str) -> bool:
        return seat in self.running.get(shard_of(seat), ())

    def __len__(self) -> int:
        return sum(map(len, self.running.values()))

    def seats(self) -> Iterator[str]:
        for part in self.running.values():
            yield from part

    def admitted(self, seat: str, node: str, freed: Collection[str]) -> dict[str, dict[str, str]]:
        """The seats with this one and without those that were freed."""
        running = dict(self.running)
        changed: set[str] = set()
        for one, place in [*((gone, None) for gone in freed), (seat, node)]:
            shard = shard_of(one)
            if shard not in changed:
                changed.add(shard)
                running[shard] = dict(running.get(shard, ()))
            if place is None:
                running[shard].pop(one, None)
            else:
                running[shard][one] = place
        return running


def evolve_quota(quota: Quota, recorded: Recorded) -> Quota:
    match recorded.fact:
        case SpawnAdmitted(task=task, node=node, freed=freed):
            running = quota.admitted(task, node, freed)
            return replace(quota, running=running, spawned=_counted(quota.spawned, recorded.at))
        case TaskDenied(node=node, lane=lane, reason=reason):
            return replace(quota, denied=quota.denied | {denial_key(lane, node): Standing(reason, recorded.at)})
    return quota


def _counted(spawned: tuple[tuple[int, int], ...], at: datetime) -> tuple[tuple[int, int], ...]:
    second = int(at.timestamp())
    kept = {one: count for one, count in spawned if one > second - WINDOW_S - 1}
    return tuple(sorted((kept | {second: kept.get(second, 0) + 1}).items()))


QUOTA = Decider("selfplay-orch", "quota", Quota(), evolve_quota)


def denial_key(lane: str, node: str) -> str:
    return f"{lane}@{node}"


def spawned_within(quota: Quota, now: datetime, seconds: int) -> int:
    """Spawns of the last `seconds`, rounded up to whole seconds."""
    since = int(now.timestamp()) - seconds
    return sum(count for second, count in quota.spawned if second >= since)


def spawn_rate_left(quota: Quota, now: datetime, per_minute: int) -> int:
    """Spawns that the rate still allows: at most `per_minute` in 60 s, and a sixth of that in 10 s."""
    minute = per_minute - spawned_within(quota, now, WINDOW_S)
    return min(minute, max(1, per_minute // 6) - spawned_within(quota, now, BURST_S))


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

    def now(self, moment: datetime) -> float:
        """The factor that holds at the moment: 1 once it expired."""
        return self.factor if self.until is not None and moment < self.until else 1.0


def evolve_boost(boost: Boost, recorded: Recorded) -> Boost:
    match recorded.fact:
        case LaneBoosted(factor=factor, until=until, revision=revision):
            return Boost(factor, until, revision)
    return boost


BOOST = Decider("selfplay-orch", "boost", Boost(), evolve_boost)


def boost(order: BoostLane, state: Boost, ctx: Context) -> list[Fact]:
    """An operator's boost, with an expiry; an order older than the newest is refused."""
    if order.revision < state.revision:
        return [BoostRefused(lane=order.lane, revision=order.revision, newest=state.revision)]
    if order.revision == state.revision:
        return []
    until = ctx.now + timedelta(seconds=order.for_s)
    return [LaneBoosted(lane=order.lane, factor=order.factor, until=until, revision=order.revision, by=order.by)]
