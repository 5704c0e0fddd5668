"""What the planner knows: nodes, queues, the switch, alarms and open letters; and the loop's own queues' depths."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from health.core.alarm import Alarm
from health.core.alarm import evolve as evolve_alarm
from health.core.breaker import About, Breaker, Streak
from health.core.breaker import evolve as evolve_breaker
from health.core.capacity import Controller
from health.core.errors import ErrorWindow
from health.core.handler_times import HandlerTimes
from health.core.letter import OPEN, DeadLetter
from health.core.letter import evolve as evolve_letter
from health.core.node import Node
from health.core.node import evolve as evolve_node
from health.core.pressure import Queue
from health.core.pressure import evolve as evolve_queue
from health.core.recovery import Recovery
from health.core.recovery import evolve as evolve_recovery
from health.core.score import Score
from health.core.score import evolve as evolve_score
from health.core.switch import Cluster
from health.core.switch import evolve as evolve_cluster
from health.core.threshold import HEARTBEAT, WINDOW, Threshold
from health.core.threshold import evolve as evolve_threshold
from health.core.watch import Watching
from health.core.watch import evolve as evolve_watch
from sparring.contracts.health import (
    NodeDraining,
    NodeForgotten,
    NodeJoined,
    NodeLost,
    NodeRecovered,
    RecoveryFailed,
    RecoverySucceeded,
    ThresholdMoved,
)
from sparring.contracts.lanes import LaneSpec
from sparring.contracts.lifecycle import GateDecided, GateOpened, ModelPromoted, ModelRejected
from sparring.contracts.parts import WELL_WITHIN
from sparring.contracts.pipeline import (
    ExportFinished,
    IterationClosed,
    IterationOpened,
    LaneEdited,
    LaneRegistered,
    QualityRefused,
)
from sparring.contracts.selfplay_orch import TaskFailed, TaskFinished
from sparring.contracts.sync import (
    BatchAdmitted,
    BatchLost,
    BatchQuarantined,
    BatchStored,
    DatasetSealed,
    GamesRecorded,
    TransferFailed,
)
from sparring.decider import Recorded
from sparring.picture import StoredPicture

PRODUCED_KEPT = 200
JUDGED_KEPT = 50
RECOVERED_KEPT = 200
# a silence below it is well within any heartbeat limit that the settings allow
DEFAULT_LIMIT_S = 20.0


@dataclass
class Lane:
    """Depths of a lane's queues, in the queues' own units; `unstored` is a batch's node. `usable` says of the newest batches
    whether they were admitted, `unusable` why the last one was not."""

    spec: LaneSpec | None = None
    positions: int = 0
    consumed: int = 0
    pending: dict[str, int] = field(default_factory=dict)
    unstored: dict[str, str] = field(default_factory=dict)
    sealed: set[str] = field(default_factory=set)
    gates: set[str] = field(default_factory=set)
    passed: set[str] = field(default_factory=set)
    deadline_at: datetime | None = None
    iteration: str = ""
    produced: list[tuple[datetime, int]] = field(default_factory=list)
    registered_at: datetime | None = None
    usable: tuple[bool, ...] = ()
    unusable: str = ""

    def judged(self, usable: bool, reason: str = "") -> None:
        """Whether a batch was admitted, or why it is in quarantine or lost."""
        self.usable = (*self.usable, usable)[-JUDGED_KEPT:]
        self.unusable = reason or self.unusable


@dataclass
class Everything:
    """`streaks` are the failures in a row since a breaker last changed, by breaker; `known` are kinds and links that were
    seen at work; `silences` say of silences that ended whether they were well within the heartbeat limit."""

    nodes: dict[str, Node] = field(default_factory=dict)
    draining: set[str] = field(default_factory=set)
    queues: dict[str, Queue] = field(default_factory=dict)
    cluster: Cluster = field(default_factory=Cluster)
    score: Score = field(default_factory=Score)
    alarms: dict[str, Alarm] = field(default_factory=dict)
    letters: dict[str, DeadLetter] = field(default_factory=dict)
    watching: Watching = field(default_factory=Watching)
    breakers: dict[str, Breaker] = field(default_factory=dict)
    streaks: dict[str, Streak] = field(default_factory=dict)
    known: set[str] = field(default_factory=set)
    recoveries: dict[str, Recovery] = field(default_factory=dict)
    recovered: tuple[tuple[datetime, bool], ...] = ()
    thresholds: dict[str, Threshold] = field(default_factory=dict)
    silences: tuple[bool, ...] = ()
    lanes: dict[str, Lane] = field(default_factory=dict)


class HealthPicture(StoredPicture[Everything]):
    """A fold over health's own facts and what makes queues deep and breakers open."""

    kind = Everything

    def __init__(self) -> None:
        super().__init__()
        # what lives on readings, which are not kept: a new process begins it anew, and nothing is decided on its absence
        self.controllers: dict[str, tuple[Controller, datetime]] = {}
        self.errors = ErrorWindow()
        self.handlers = HandlerTimes()
        self.good_since: datetime | None = None
        self.progress: dict[tuple[str, int], tuple[float, datetime]] = {}
        self._looked: dict[str, datetime] = {}

    def due(self, subject: str, every_s: float, now: datetime) -> bool:
        """Whether the subject was not looked at for that long; says so once."""
        last = self._looked.get(subject)
        if last is not None and 0 <= (now - last).total_seconds() < every_s:
            return False
        self._looked[subject] = now
        return True

    def lane(self, name: str) -> Lane:
        return self.all.lanes.setdefault(name, Lane())

    def apply(self, recorded: Recorded) -> None:
        fact = recorded.fact
        match fact.owner:
            case "health":
                self._own(recorded)
            case "sync":
                self._data(recorded)
            case "pipeline" | "lifecycle":
                self._loop(recorded)
            case "selfplay-orch":
                self._tasks(recorded)

    # ---- health's own facts

    def _own(self, recorded: Recorded) -> None:
        everything, fact = self.all, recorded.fact
        match fact.entity:
            case "node":
                self._node(recorded)
            case "queue":
                everything.queues[fact.id] = evolve_queue(everything.queues.get(fact.id, Queue()), recorded)
            case "cluster":
                everything.cluster = evolve_cluster(everything.cluster, recorded)
            case "score":
                everything.score = evolve_score(everything.score, recorded)
            case "alarm":
                everything.alarms[fact.id] = evolve_alarm(everything.alarms.get(fact.id, Alarm()), recorded)
            case "watch":
                everything.watching = evolve_watch(everything.watching, recorded)
            case "breaker":
                self._breaker(recorded)
            case "recovery":
                self._recovery(recorded)
            case "threshold":
                moved = evolve_threshold(everything.thresholds.get(fact.id), recorded)
                if isinstance(fact, ThresholdMoved) and moved is not None:
                    everything.thresholds[fact.id] = moved
                    # outcomes under the old value say nothing of the new one
                    everything.silences = () if fact.id == HEARTBEAT else everything.silences
            case "dead-letter":
                letter = evolve_letter(everything.letters.get(fact.id, DeadLetter()), recorded)
                everything.letters[fact.id] = letter
                if letter.state not in OPEN:
                    del everything.letters[fact.id]

    def _node(self, recorded: Recorded) -> None:
        everything, fact = self.all, recorded.fact
        before = everything.nodes.get(fact.id, Node())
        self._silence(before, fact)
        everything.nodes[fact.id] = evolve_node(before, recorded)
        everything.draining.discard(fact.id)
        match fact:
            case NodeJoined(boot=boot) if boot != before.boot:
                # its seats are its class's again: what the controller learned was of another life
                self.controllers.pop(fact.id, None)
            case NodeDraining():
                everything.draining.add(fact.id)
            case NodeForgotten():
                del everything.nodes[fact.id]
                self.controllers.pop(fact.id, None)
                for lane in everything.lanes.values():
                    for batch in [name for name, node in lane.unstored.items() if node == fact.id]:
                        lane.pending.pop(batch, None)
                for scope in ("node", "link"):
                    everything.streaks.pop(f"{scope}-{fact.id}", None)
                    everything.breakers.pop(f"{scope}-{fact.id}", None)

    def _silence(self, before: Node, fact: object) -> None:
        match fact:
            case NodeRecovered(silent_s=silent_s):
                moved = self.all.thresholds.get(HEARTBEAT)
                well = silent_s <= WELL_WITHIN * moved.value if moved else silent_s <= WELL_WITHIN * DEFAULT_LIMIT_S
            case NodeJoined(boot=boot) if before.state == "lost" and before.boot == boot:
                # it was alive all the time
                well = False
            case NodeLost(reason="silent"):
                return
            case _:
                return
        self.all.silences = (*self.all.silences, well)[-WINDOW:]

    def _breaker(self, recorded: Recorded) -> None:
        id = recorded.fact.id
        breaker = self.all.breakers[id] = evolve_breaker(self.all.breakers.get(id, Breaker()), recorded)
        if breaker.about is not None and breaker.state != "closed":
            self.all.streaks[id] = Streak(breaker.about)
        else:
            self.all.streaks.pop(id, None)
            self.all.breakers.pop(id, None)

    def _recovery(self, recorded: Recorded) -> None:
        id = recorded.fact.id
        recovery = self.all.recoveries[id] = evolve_recovery(self.all.recoveries.get(id, Recovery()), recorded)
        if recovery.state == "well":
            del self.all.recoveries[id]
        match recorded.fact:
            case RecoveryFailed():
                self.all.recovered = (*self.all.recovered, (recorded.at, False))[-RECOVERED_KEPT:]
            case RecoverySucceeded():
                self.all.recovered = (*self.all.recovered, (recorded.at, True))[-RECOVERED_KEPT:]

    # ---- what fails and what succeeds

    def _failed(self, about: About, source: str, reason: str) -> None:
        streak = self.all.streaks.get(about.id, Streak(about))
        self.all.streaks[about.id] = streak.failed(source, reason)
        if about.scope != "node":
            self.all.known.add(about.id)

    def _succeeded(self, about: About) -> None:
        if about.scope != "node":
            self.all.known.add(about.id)
        if about.id not in self.all.streaks:
            return
        if about.id in self.all.breakers:
            self.all.streaks[about.id] = Streak(about, succeeded=True)
        else:
            del self.all.streaks[about.id]

    def _tasks(self, recorded: Recorded) -> None:
        match recorded.fact:
            case TaskFinished(node=node, kind=kind, lane=lane, superseded=False):
                self._succeeded(About("node", node))
                self._succeeded(About("kind", lane=lane, kind=kind))
            case TaskFailed(node=node, kind=kind, lane=lane, reason=reason):
                # failures count while all is as it should be: not when the cluster halts or the node leaves
                known = self.all.nodes.get(node)
                if known is not None and known.state == "healthy" and self.all.cluster.state != "halted":
                    self._failed(About("node", node), f"{lane} {kind}", reason)
                    self._failed(About("kind", lane=lane, kind=kind), node, reason)

    # ---- what makes queues deep

    def _data(self, recorded: Recorded) -> None:
        match recorded.fact:
            case GamesRecorded(lane=lane, batch=batch, games=games, node=node):
                one = self.lane(lane)
                one.pending[batch] = games
                one.unstored[batch] = node
                one.produced = [*one.produced[-PRODUCED_KEPT:], (recorded.at, games)]
            case TransferFailed(batch=batch, reason=reason, missing=missing) if not missing:
                for one in self.all.lanes.values():
                    if batch in one.unstored:
                        self._failed(About("link", one.unstored[batch]), batch, reason)
            case BatchStored(batch=batch):
                for one in self.all.lanes.values():
                    if batch in one.unstored:
                        self._succeeded(About("link", one.unstored.pop(batch)))
            case BatchAdmitted(lane=lane, batch=batch, positions=positions):
                self.lane(lane).pending.pop(batch, None)
                self.lane(lane).positions += positions
                self.lane(lane).judged(True)
            case (
                BatchQuarantined(lane=lane, batch=batch, reason=reason)
                | BatchLost(lane=lane, batch=batch, proof=reason)
            ):
                self.lane(lane).pending.pop(batch, None)
                self.lane(lane).unstored.pop(batch, None)
                self.lane(lane).judged(False, reason)
            case DatasetSealed(lane=lane, iteration=iteration, new_positions=fresh):
                self.lane(lane).consumed += fresh
                self.lane(lane).sealed.add(iteration)

    def _loop(self, recorded: Recorded) -> None:
        match recorded.fact:
            case LaneRegistered(lane=lane, spec=spec) | LaneEdited(lane=lane, spec=spec):
                self.lane(lane).spec = spec
                self.lane(lane).registered_at = self.lane(lane).registered_at or recorded.at
            case IterationOpened(lane=lane, iteration=name):
                self.lane(lane).iteration = name
            case ExportFinished(lane=lane, iteration=name) | QualityRefused(lane=lane, iteration=name):
                self.lane(lane).sealed.discard(name)
            case IterationClosed(lane=lane, iteration=name):
                self.lane(lane).deadline_at = None
                self.lane(lane).sealed.discard(name)
            case GateOpened(lane=lane, gate=gate):
                self.lane(lane).gates.add(gate)
            case GateDecided(lane=lane, gate=gate, verdict=verdict):
                self.lane(lane).gates.discard(gate)
                if verdict == "passed":
                    self.lane(lane).passed.add(gate)
            case ModelPromoted(lane=lane, gate=gate) | ModelRejected(lane=lane, gate=gate):
                self.lane(lane).passed.discard(gate)
        deadline = vars(recorded.fact).get("deadline_at")
        if recorded.fact.entity == "iteration" and deadline is not None:
            self.lane(str(getattr(recorded.fact, "lane", ""))).deadline_at = deadline
