"""What a run amounted to: seats used, games played, waits and their reasons, recoveries, cost."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from sparring.contracts.base import Fact
from sparring.contracts.health import BackpressureChanged, CapacityRetargeted, NodeJoined, NodeLost
from sparring.contracts.lifecycle import GateDecided, ModelPromoted
from sparring.contracts.pipeline import IterationClosed, LaneRegistered
from sparring.contracts.selfplay_orch import (
    TaskAbandoned,
    TaskAssigned,
    TaskCancelled,
    TaskDenied,
    TaskFailed,
    TaskFinished,
    TaskOrphaned,
    TaskRequested,
)
from sparring.contracts.sync import BatchAdmitted, BatchLost, GamesRecorded
from sparring.decider import Recorded
from sparring.simulation.setup import Setup


@dataclass(slots=True)
class Wait:
    """A task that waits for a seat."""

    since: float
    kind: str
    lane: str
    orphaned: bool = False


@dataclass(slots=True)
class Run:
    """A task's time on a node."""

    node: str
    lane: str
    kind: str
    began: float
    ended: float
    wasted: bool


@dataclass
class Presence:
    """A node's seats while it is there."""

    seats: int = 0
    since: float = 0.0
    here: bool = False
    offered_s: float = 0.0
    alive_s: float = 0.0


@dataclass
class Chronicle:
    """Sums over a run, taken fact by fact; all times in virtual seconds."""

    setup: Setup
    facts: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    runs: list[Run] = field(default_factory=list)
    presence: dict[str, Presence] = field(default_factory=lambda: defaultdict(Presence))
    waiting: dict[str, Wait] = field(default_factory=dict)
    waits: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    recoveries: list[float] = field(default_factory=list)
    detections: list[float] = field(default_factory=list)
    denied: Counter[str] = field(default_factory=Counter)
    games: Counter[str] = field(default_factory=Counter)
    admitted: Counter[str] = field(default_factory=Counter)
    lost_games: dict[str, int] = field(default_factory=dict)
    verdicts: Counter[tuple[str, str]] = field(default_factory=Counter)
    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    promotions: list[tuple[float, str, int, str]] = field(default_factory=list)
    pressures: list[tuple[float, str, str, str]] = field(default_factory=list)
    departures: list[tuple[float, str, str]] = field(default_factory=list)
    last_placed: dict[str, float] = field(default_factory=dict)
    gaps: dict[str, float] = field(default_factory=dict)
    kinds: dict[str, tuple[str, str]] = field(default_factory=dict)
    gone_at: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._on: dict[type[Fact], Callable[[Any, float], None]] = {
            TaskRequested: self._requested, TaskAssigned: self._assigned, TaskFinished: self._ended,
            TaskFailed: self._failed, TaskOrphaned: self._orphaned, TaskCancelled: self._ended,
            TaskAbandoned: self._ended, TaskDenied: self._denied, GamesRecorded: self._recorded,
            BatchAdmitted: self._admitted, BatchLost: self._lost, GateDecided: self._decided,
            ModelPromoted: self._promoted, IterationClosed: self._closed, LaneRegistered: self._registered,
            BackpressureChanged: self._pressed, NodeJoined: self._joined, CapacityRetargeted: self._joined,
            NodeLost: self._node_lost,
        }  # fmt: skip

    def apply(self, one: Recorded, now: float) -> None:
        self.facts += 1
        found = self._on.get(type(one.fact))
        if found is not None:
            found(one.fact, now)

    def count(self, name: str) -> None:
        self.counts[name] += 1

    # ---- tasks

    def _requested(self, fact: TaskRequested, now: float) -> None:
        self.counts["tasks"] += 1
        self.kinds[fact.task] = (fact.spec.kind, fact.spec.lane)
        self.waiting[fact.task] = Wait(now, fact.spec.kind, fact.spec.lane)

    def _assigned(self, fact: TaskAssigned, now: float) -> None:
        wait = self.waiting.pop(fact.task, None)
        if wait is None:
            return
        self.waits[wait.kind].append(now - wait.since)
        if wait.orphaned:
            self.recoveries.append(now - wait.since)
        if wait.kind == "selfplay":
            gap = now - self.last_placed.get(wait.lane, now)
            self.gaps[wait.lane] = max(self.gaps.get(wait.lane, 0.0), gap)
            self.last_placed[wait.lane] = now

    def _failed(self, fact: TaskFailed, now: float) -> None:
        self.counts["failed attempts"] += 1
        if fact.retry_at is not None:
            self.waiting[fact.task] = Wait(now, fact.kind, fact.lane)

    def _orphaned(self, fact: TaskOrphaned, now: float) -> None:
        self.counts["orphaned"] += 1
        kind, lane = self.kinds.get(fact.task, ("", ""))
        self.waiting[fact.task] = Wait(self.gone_at.get(fact.node, now), kind, lane, orphaned=True)

    def _ended(self, fact: TaskFinished | TaskCancelled | TaskAbandoned, now: float) -> None:  # noqa: ARG002
        self.waiting.pop(fact.task, None)
        self.kinds.pop(fact.task, None)
        if isinstance(fact, TaskFinished):
            self.counts["superseded" if fact.superseded else "finished"] += 1
        else:
            self.counts["cancelled" if isinstance(fact, TaskCancelled) else "abandoned"] += 1

    def _denied(self, fact: TaskDenied, now: float) -> None:  # noqa: ARG002
        self.denied[f"{fact.kind}: {fact.reason}"] += 1

    def ran(self, node: str, lane: str, kind: str, began: float, ended: float, wasted: bool) -> None:
        self.runs.append(Run(node, lane, kind, began, ended, wasted))

    # ---- data and models

    def _recorded(self, fact: GamesRecorded, now: float) -> None:  # noqa: ARG002
        self.games[fact.lane] += fact.games

    def _admitted(self, fact: BatchAdmitted, now: float) -> None:  # noqa: ARG002
        self.admitted[fact.lane] += fact.games
        # its node came back with them
        self.lost_games.pop(fact.batch, None)

    def _lost(self, fact: BatchLost, now: float) -> None:  # noqa: ARG002
        self.lost_games[fact.batch] = fact.games

    def _decided(self, fact: GateDecided, now: float) -> None:  # noqa: ARG002
        self.verdicts[fact.lane, fact.verdict] += 1

    def _promoted(self, fact: ModelPromoted, now: float) -> None:
        self.promotions.append((now, fact.lane, fact.number, fact.model))

    def _closed(self, fact: IterationClosed, now: float) -> None:  # noqa: ARG002
        self.outcomes[fact.lane, fact.outcome] += 1

    def _registered(self, fact: LaneRegistered, now: float) -> None:
        self.last_placed.setdefault(fact.lane, now)

    def _pressed(self, fact: BackpressureChanged, now: float) -> None:
        self.pressures.append((now, fact.lane, fact.name, fact.level))

    # ---- nodes

    def _joined(self, fact: NodeJoined | CapacityRetargeted, now: float) -> None:
        one = self.presence[fact.node]
        self._settle(one, now)
        one.seats = fact.seats
        self.gone_at.pop(fact.node, None)

    def _node_lost(self, fact: NodeLost, now: float) -> None:
        if fact.node in self.gone_at:
            self.detections.append(now - self.gone_at[fact.node])

    def node_here(self, node: str, now: float) -> None:
        one = self.presence[node]
        self._settle(one, now)
        one.here = True

    def node_gone(self, node: str, now: float) -> None:
        one = self.presence[node]
        self._settle(one, now)
        one.here = False
        self.gone_at[node] = now

    def departure(self, node: str, how: str, now: float) -> None:
        self.departures.append((now, node, how))

    def _settle(self, one: Presence, now: float) -> None:
        if one.here:
            one.offered_s += one.seats * (now - one.since)
            one.alive_s += now - one.since
        one.since = now

    def settle(self, now: float) -> None:
        """Counts everything up to now."""
        for one in self.presence.values():
            self._settle(one, now)
