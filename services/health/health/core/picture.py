"""What the planner knows: nodes, queues, the switch, alarms and open letters; and the loop's own queues' depths."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from health.core import small
from health.core.capacity import Controller
from health.core.letter import OPEN, DeadLetter
from health.core.letter import evolve as evolve_letter
from health.core.node import Node
from health.core.node import evolve as evolve_node
from sparring.contracts.health import NodeDraining
from sparring.contracts.lanes import LaneSpec
from sparring.contracts.lifecycle import GateDecided, GateOpened
from sparring.contracts.pipeline import IterationClosed, IterationOpened, LaneEdited, LaneRegistered
from sparring.contracts.selfplay_orch import TaskFinished
from sparring.contracts.sync import (
    BatchAdmitted,
    BatchLost,
    BatchQuarantined,
    BatchStored,
    DatasetSealed,
    GamesRecorded,
)
from sparring.decider import Recorded
from sparring.picture import StoredPicture


@dataclass
class Lane:
    """Depths of a lane's queues, in the queues' own units."""

    spec: LaneSpec | None = None
    positions: int = 0
    consumed: int = 0
    pending: dict[str, int] = field(default_factory=dict)
    unstored: dict[str, int] = field(default_factory=dict)
    gates: set[str] = field(default_factory=set)
    deadline_at: datetime | None = None
    iteration: str = ""
    produced: list[tuple[datetime, int]] = field(default_factory=list)


@dataclass
class Everything:
    nodes: dict[str, Node] = field(default_factory=dict)
    draining: dict[str, float] = field(default_factory=dict)
    queues: dict[str, small.Queue] = field(default_factory=dict)
    cluster: small.Cluster = field(default_factory=small.Cluster)
    score: small.Score = field(default_factory=small.Score)
    alarms: dict[str, small.Alarm] = field(default_factory=dict)
    letters: dict[str, DeadLetter] = field(default_factory=dict)
    watching: small.Watching = field(default_factory=small.Watching)
    lanes: dict[str, Lane] = field(default_factory=dict)
    finished: int = 0


PRODUCED_KEPT = 200


class HealthPicture(StoredPicture[Everything]):
    """A fold over health's own facts and what makes queues deep."""

    kind = Everything

    def __init__(self) -> None:
        super().__init__()
        # controllers live on readings, which are not kept: a new process begins them at the present seats
        self.controllers: dict[str, tuple[Controller, datetime]] = {}

    def lane(self, name: str) -> Lane:
        return self.all.lanes.setdefault(name, Lane())

    def apply(self, recorded: Recorded) -> None:
        fact = recorded.fact
        match fact.owner:
            case "health":
                self._own(recorded)
            case "sync":
                self._data(recorded)
            case "pipeline" | "lifecycle" | "selfplay-orch":
                self._loop(recorded)

    def _own(self, recorded: Recorded) -> None:
        everything, fact = self.all, recorded.fact
        match fact.entity:
            case "node":
                everything.nodes[fact.id] = evolve_node(everything.nodes.get(fact.id, Node()), recorded)
                everything.draining.pop(fact.id, None)
                if isinstance(fact, NodeDraining):
                    everything.draining[fact.id] = fact.grace_s
            case "queue":
                queue = everything.queues.get(fact.id, small.Queue())
                everything.queues[fact.id] = small.evolve_queue(queue, recorded)
            case "cluster":
                everything.cluster = small.evolve_cluster(everything.cluster, recorded)
            case "score":
                everything.score = small.evolve_score(everything.score, recorded)
            case "alarm":
                alarm = everything.alarms.get(fact.id, small.Alarm())
                everything.alarms[fact.id] = small.evolve_alarm(alarm, recorded)
            case "watch":
                everything.watching = small.evolve_watch(everything.watching, recorded)
            case "dead-letter":
                letter = evolve_letter(everything.letters.get(fact.id, DeadLetter()), recorded)
                everything.letters[fact.id] = letter
                if letter.state not in OPEN:
                    del everything.letters[fact.id]

    def _data(self, recorded: Recorded) -> None:
        match recorded.fact:
            case GamesRecorded(lane=lane, batch=batch, games=games):
                one = self.lane(lane)
                one.pending[batch] = games
                one.unstored[batch] = games
                one.produced = [*one.produced[-PRODUCED_KEPT:], (recorded.at, games)]
            case BatchStored(batch=batch):
                for one in self.all.lanes.values():
                    one.unstored.pop(batch, None)
            case BatchAdmitted(lane=lane, batch=batch, positions=positions):
                self.lane(lane).pending.pop(batch, None)
                self.lane(lane).positions += positions
            case BatchQuarantined(lane=lane, batch=batch) | BatchLost(lane=lane, batch=batch):
                self.lane(lane).pending.pop(batch, None)
                self.lane(lane).unstored.pop(batch, None)
            case DatasetSealed(lane=lane, new_positions=fresh):
                self.lane(lane).consumed += fresh

    def _loop(self, recorded: Recorded) -> None:
        match recorded.fact:
            case LaneRegistered(lane=lane, spec=spec) | LaneEdited(lane=lane, spec=spec):
                self.lane(lane).spec = spec
            case IterationOpened(lane=lane, iteration=name):
                self.lane(lane).iteration = name
            case IterationClosed(lane=lane):
                self.lane(lane).deadline_at = None
            case GateOpened(lane=lane, gate=gate):
                self.lane(lane).gates.add(gate)
            case GateDecided(lane=lane, gate=gate):
                self.lane(lane).gates.discard(gate)
            case TaskFinished():
                self.all.finished += 1
        deadline = getattr(recorded.fact, "deadline_at", None)
        if recorded.fact.entity == "iteration" and deadline is not None:
            self.lane(str(getattr(recorded.fact, "lane", ""))).deadline_at = deadline
