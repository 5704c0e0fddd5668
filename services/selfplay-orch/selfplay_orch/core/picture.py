"""What the planner knows: open tasks, nodes and their seats, lanes and what they need."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pydantic import TypeAdapter

from selfplay_orch.core.durations import Durations
from selfplay_orch.core.limits import Boost, Plan, Quota, Seats, evolve_boost, evolve_plan, evolve_quota, evolve_seats
from selfplay_orch.core.task import Task, evolve
from sparring.contracts.health import (
    BackpressureChanged,
    CapacityRetargeted,
    ClusterSwitched,
    NodeDrained,
    NodeDraining,
    NodeJoined,
    NodeLost,
    NodeRecovered,
    NodeSuspected,
)
from sparring.contracts.lanes import LaneSpec
from sparring.contracts.lifecycle import CurriculumRebalanced, GateDecided, ModelPromoted, ModelRolledBack
from sparring.contracts.parts import Artifact
from sparring.contracts.pipeline import (
    IterationClosed,
    IterationOpened,
    LaneEdited,
    LanePaused,
    LaneRegistered,
    LaneResumed,
    TrainingStarted,
)
from sparring.contracts.selfplay_orch import TaskCancelled, TaskFinished
from sparring.contracts.sync import BatchAdmitted, DatasetSealed
from sparring.decider import Recorded


@dataclass
class Node:
    boot: str = ""
    state: str = "lost"
    seats: int = 0
    kinds: tuple[str, ...] = ()
    gpus: int = 0
    cores: float = 1.0
    ephemeral: bool = False
    joined_at: datetime | None = None

    @property
    def usable(self) -> bool:
        return self.state == "healthy"

    @property
    def node_class(self) -> str:
        """Nodes alike enough to share durations."""
        return f"gpu{self.gpus}" if self.gpus else f"cpu{round(self.cores)}"


@dataclass
class Lane:
    spec: LaneSpec | None = None
    paused: bool = False
    iteration: str = ""
    iterations: int = 0
    training: bool = False
    model: Artifact | None = None
    games: int = 0
    positions: int = 0
    consumed: int = 0
    last_games_at: datetime | None = None
    registered_at: datetime | None = None
    verdicts: tuple[bool, ...] = ()
    elo_gains: tuple[tuple[datetime, float], ...] = ()
    weight: float = 1.0
    pressure: dict[str, float] = field(default_factory=dict)
    boost: Boost = field(default_factory=Boost)
    quality: float = 1.0

    @property
    def factor(self) -> float:
        """The strictest back-pressure on self-play."""
        return min(self.pressure.values(), default=1.0)


@dataclass
class Everything:
    tasks: dict[str, Task] = field(default_factory=dict)
    nodes: dict[str, Node] = field(default_factory=dict)
    seats: dict[str, Seats] = field(default_factory=dict)
    quotas: dict[str, Quota] = field(default_factory=dict)
    lanes: dict[str, Lane] = field(default_factory=dict)
    plan: Plan = field(default_factory=Plan)
    cluster: str = "running"
    stopping: dict[str, tuple[str, int]] = field(default_factory=dict)
    minted: int = 0


_ADAPTER = TypeAdapter(Everything)
SELFPLAY_QUEUES = ("training-data", "pending-games")
VERDICTS_KEPT = 10


class WorkPicture:
    """A fold over the facts of all services; tasks that ended leave it."""

    def __init__(self) -> None:
        self.all = Everything()
        self.durations = Durations()

    def dump(self) -> Any:
        return {"all": _ADAPTER.dump_python(self.all, mode="json"), "durations": self.durations.dump()}

    def load(self, data: Any) -> None:
        self.all = _ADAPTER.validate_python(data["all"])
        self.durations.load(data["durations"])

    def lane(self, name: str) -> Lane:
        return self.all.lanes.setdefault(name, Lane())

    def seats(self, node: str) -> Seats:
        return self.all.seats.get(node, Seats())

    def quota(self, kind: str) -> Quota:
        return self.all.quotas.get(kind, Quota())

    def apply(self, recorded: Recorded) -> None:
        fact = recorded.fact
        match fact.owner, fact.entity:
            case "selfplay-orch", "task":
                self._task(recorded)
            case "selfplay-orch", "node":
                self.all.seats[fact.id] = evolve_seats(self.seats(fact.id), recorded)
            case "selfplay-orch", "quota":
                self.all.quotas[fact.id] = evolve_quota(self.quota(fact.id), recorded)
            case "selfplay-orch", "plan":
                self.all.plan = evolve_plan(self.all.plan, recorded)
            case "selfplay-orch", "boost":
                self.lane(fact.id).boost = evolve_boost(self.lane(fact.id).boost, recorded)
            case "health", _:
                self._health(recorded)
            case "pipeline", _:
                self._loop(recorded)
            case "lifecycle", _:
                self._models(recorded)
            case "sync", _:
                self._data(recorded)

    def _task(self, recorded: Recorded) -> None:
        fact = recorded.fact
        before = self.all.tasks.get(fact.id, Task())
        task = evolve(before, recorded)
        match fact:
            case TaskFinished(superseded=False) as done if before.node in self.all.nodes:
                node = self.all.nodes[before.node]
                games = done.evidence.get("games", 0)
                self.durations.note(done.kind, done.lane, node.node_class, done.seconds, int(games or 0))
            case TaskCancelled() if before.running:
                self.all.stopping[fact.id] = (before.node, before.attempt)
        self.all.minted += 1
        if task.state in ("requested", "assigned", "started"):
            self.all.tasks[fact.id] = task
        else:
            self.all.tasks.pop(fact.id, None)

    def _health(self, recorded: Recorded) -> None:
        match recorded.fact:
            case NodeJoined() as fact:
                state = "healthy" if fact.compatible else "incompatible"
                self.all.nodes[fact.node] = Node(fact.boot, state, fact.seats, fact.kinds, len(fact.gpus), fact.cores,
                                                 fact.ephemeral, recorded.at)  # fmt: skip
            case NodeSuspected(node=node) | NodeDraining(node=node) | NodeLost(node=node) | NodeDrained(node=node):
                states = {
                    NodeSuspected: "suspected",
                    NodeDraining: "draining",
                    NodeLost: "lost",
                    NodeDrained: "drained",
                }
                self.all.nodes.setdefault(node, Node()).state = states[type(recorded.fact)]
            case NodeRecovered(node=node):
                self.all.nodes.setdefault(node, Node()).state = "healthy"
            case CapacityRetargeted(node=node, seats=seats):
                self.all.nodes.setdefault(node, Node()).seats = seats
            case BackpressureChanged(lane=lane, name=name, factor=factor) if name in SELFPLAY_QUEUES:
                self.lane(lane).pressure[name] = factor
            case ClusterSwitched(state=state):
                self.all.cluster = state

    def _loop(self, recorded: Recorded) -> None:
        match recorded.fact:
            case LaneRegistered(lane=lane, spec=spec) | LaneEdited(lane=lane, spec=spec):
                self.lane(lane).spec = spec
                if self.lane(lane).registered_at is None:
                    self.lane(lane).registered_at = recorded.at
            case LanePaused(lane=lane):
                self.lane(lane).paused = True
            case LaneResumed(lane=lane):
                self.lane(lane).paused = False
            case IterationOpened(lane=lane, iteration=name):
                self.lane(lane).iteration, self.lane(lane).training = name, False
            case TrainingStarted(lane=lane):
                self.lane(lane).training = True
            case IterationClosed(lane=lane):
                self.lane(lane).iterations += 1

    def _models(self, recorded: Recorded) -> None:
        match recorded.fact:
            case ModelPromoted(lane=lane, artifact=artifact):
                self.lane(lane).model = artifact
            case ModelRolledBack(lane=lane, artifact=artifact):
                self.lane(lane).model = artifact
            case GateDecided(lane=lane) as fact:
                one = self.lane(lane)
                passed = fact.verdict == "passed"
                one.verdicts = (*one.verdicts, passed)[-VERDICTS_KEPT:]
                gain = fact.statistics.elo if passed and fact.statistics else 0.0
                one.elo_gains = (*one.elo_gains, (recorded.at, gain))[-VERDICTS_KEPT:]
            case CurriculumRebalanced(lane=lane, weight=weight):
                self.lane(lane).weight = weight

    def _data(self, recorded: Recorded) -> None:
        match recorded.fact:
            case BatchAdmitted(lane=lane) as fact:
                one = self.lane(lane)
                one.games += fact.games
                one.positions += fact.positions
                one.last_games_at = recorded.at
            case DatasetSealed(lane=lane) as fact:
                self.lane(lane).consumed += fact.new_positions
