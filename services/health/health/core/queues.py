"""How deep each queue is, from what the log says and from what nodes beat, and the pressure that follows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from health.core.beats import Heard
from health.core.node import Node
from health.core.picture import HealthPicture, Lane
from health.core.pressure import (
    CRITICAL_NODES,
    EVALUATION,
    EXPORT,
    PROMOTION,
    QUEUE,
    SYNC,
    Limits,
    Queue,
    next_level,
)
from sparring.contracts.base import Fact
from sparring.contracts.health import BackpressureChanged
from sparring.contracts.parts import ALL_LANES, FACTORS
from sparring.contracts.readings import Resources
from sparring.decider import Append, Context
from sparring.subjects import Ref

RATE_S, LEAST_S = 300.0, 60.0
NODES_QUEUE = "cluster-nodes"
UNREACHED = ("lost", "drained", "retired")


@dataclass(frozen=True)
class Depth:
    """`value` is None while nothing recent says how deep the queue is; `age_s` is the age of the oldest reading used."""

    value: float | None
    limits: Limits
    age_s: float = 0.0


def depths(lane: Lane, nodes: Mapping[str, Node], now: datetime) -> dict[str, Depth]:
    """Every queue of a lane, counted from facts: positions, games, batches, gates, candidates, data sets."""
    assert lane.spec is not None
    rules = lane.spec.backpressure
    rate = games_per_s(lane, now)
    soft = rules.pending_games_soft or max(1_000.0, 60 * rate)
    hard = rules.pending_games_hard or max(5_000.0, 300 * rate)
    data = Limits(
        rules.training_data_positions_soft, rules.training_data_positions_hard, rules.training_data_positions_soft / 2
    )
    return {
        "training-data": Depth(float(max(0, lane.positions - lane.consumed)), data),
        "pending-games": Depth(float(pending_games(lane, nodes)), Limits(soft, max(soft, hard), soft / 2)),
        "sync": Depth(float(len(lane.unstored)), SYNC),
        "export": Depth(float(len(lane.sealed)), EXPORT),
        "evaluation": Depth(float(len(lane.gates)), EVALUATION),
        "promotion": Depth(float(len(lane.passed)), PROMOTION),
    }


def pending_games(lane: Lane, nodes: Mapping[str, Node]) -> int:
    """Games that sync can bring: those on a node that is gone wait for it, or for the proof that they are lost, and
    playing less would bring neither."""
    gone = {batch for batch, node in lane.unstored.items() if node in nodes and nodes[node].state in UNREACHED}
    return sum(games for batch, games in lane.pending.items() if batch not in gone)


def games_per_s(lane: Lane, now: datetime) -> float:
    """What the lane produced in the last five minutes."""
    since = now - timedelta(seconds=RATE_S)
    recent = [(at, games) for at, games in lane.produced if at > since]
    span = max(LEAST_S, (now - recent[0][0]).total_seconds()) if recent else RATE_S
    return sum(games for _, games in recent) / span


def critical(found: Resources, least_disk: int, least_memory: float) -> str:
    """Why the machine can't take more; '' when it can."""
    if found.disk_free_bytes < least_disk:
        return "disk"
    if found.memory_available_bytes < least_memory * found.memory_total_bytes:
        return "memory"
    return ""


@dataclass(frozen=True)
class Machines:
    """Nodes that count by what their last beat says: critical ones with the reason, and those that nothing recent is
    known of."""

    known: int
    critical: dict[str, str]
    unknown: tuple[str, ...]
    age_s: float

    @property
    def depth(self) -> Depth:
        """The critical share of the known; a node that is critical counts until something better is known of it."""
        share = len(self.critical) / self.known if self.known else None
        return Depth(share, CRITICAL_NODES, self.age_s)


def machines(ctx: Context, picture: HealthPicture, beats: Heard) -> Machines:
    known, oldest, unknown = 0, 0.0, []
    found: dict[str, str] = {}
    least = (ctx.settings.disk_least_bytes, ctx.settings.memory_least_share)
    for name, node in picture.all.nodes.items():
        if node.state not in ("healthy", "suspected"):
            continue
        beat = beats.nodes.get(name)
        if beat is None or beat[1] > ctx.settings.reading_known_s:
            unknown.append(name)
            continue
        known, oldest = known + 1, max(oldest, beat[1])
        why = critical(beat[0].resources, *least)
        if why:
            found[name] = why
    return Machines(known, found, tuple(unknown), oldest)


def of_lanes(ctx: Context, picture: HealthPicture) -> Iterable[Append]:
    for name, lane in picture.all.lanes.items():
        if lane.spec is not None:
            for queue, depth in depths(lane, picture.all.nodes, ctx.now).items():
                yield from changed(picture, f"{name}-{queue}", name, queue, depth)


def of_nodes(picture: HealthPicture, now: Machines) -> Iterable[Append]:
    if picture.all.nodes:
        yield from changed(picture, NODES_QUEUE, ALL_LANES, "nodes", now.depth)


def changed(picture: HealthPicture, id: str, lane: str, name: str, depth: Depth) -> Iterable[Append]:
    before = picture.all.queues.get(id, Queue()).level
    level = next_level(depth.value, depth.limits, before)
    if level == before:
        return
    fact = BackpressureChanged(
        queue=id, lane=lane, name=name, level=level, before=before, factor=FACTORS[level], depth=depth.value,
        soft=depth.limits.soft, hard=depth.limits.hard, age_s=round(depth.age_s, 1), target=depth.limits.target,
    )  # fmt: skip
    yield Append([(QUEUE, id)], partial(_unless_changed, fact))


def _unless_changed(fact: BackpressureChanged, states: Mapping[Ref, Any]) -> Sequence[Fact]:
    return [fact] if states[QUEUE.ref(fact.queue)].level == fact.before else []
