"""What the planner knows: open tasks, nodes and their seats, lanes and what they need."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from selfplay_orch.core.cluster import Breaker, Lane, Node
from selfplay_orch.core.durations import Durations
from selfplay_orch.core.index import Index, indexed
from selfplay_orch.core.limits import (
    Plan,
    Quota,
    Seats,
    denial_key,
    evolve_boost,
    evolve_plan,
    evolve_quota,
    evolve_seats,
)
from selfplay_orch.core.task import Task, evolve
from sparring.adapters import adapter_for
from sparring.contracts import health, lifecycle, pipeline, sync
from sparring.contracts.parts import ALL_LANES
from sparring.contracts.selfplay_orch import (
    SpawnAdmitted,
    TaskAssigned,
    TaskCancelled,
    TaskFailed,
    TaskFinished,
    TaskRequested,
)
from sparring.decider import Recorded

GATES_KEPT = 20
LIVES_KEPT = 20
STOPPING_KEPT_S = 900.0
LEAST_SHARE = 0.01


@dataclass(frozen=True)
class Stop:
    """An attempt that should not run any more on its node; `ordered` says that its agent did not end it itself."""

    task: str
    node: str
    attempt: int
    reason: str
    at: datetime
    ordered: bool
    iteration: str = ""


@dataclass
class Everything:
    """`pressure` presses on every lane; `clock` is the fair order's virtual time; `lives` are seconds that ephemeral nodes lived."""

    tasks: dict[str, Task] = field(default_factory=dict)
    outside: dict[str, Task] = field(default_factory=dict)
    nodes: dict[str, Node] = field(default_factory=dict)
    seats: dict[str, Seats] = field(default_factory=dict)
    quotas: dict[str, Quota] = field(default_factory=dict)
    lanes: dict[str, Lane] = field(default_factory=dict)
    plan: Plan = field(default_factory=Plan)
    cluster: str = "running"
    switched_at: datetime | None = None
    revision: int = 0
    blind_until: datetime | None = None
    stopping: dict[str, Stop] = field(default_factory=dict)
    placed_at: dict[str, datetime] = field(default_factory=dict)
    pressure: dict[str, float] = field(default_factory=dict)
    clock: float = 0.0
    lives: tuple[float, ...] = ()


class WorkPicture:
    """A fold over the facts of all services; tasks that ended leave it."""

    def __init__(self) -> None:
        self.all = Everything()
        self.durations = Durations()
        self.index = Index()

    def dump(self) -> Any:
        return {"all": adapter_for(Everything).dump_python(self.all, mode="json"), "durations": self.durations.dump()}

    def text(self) -> str:
        durations = json.dumps(self.durations.dump())
        return f'{{"all": {adapter_for(Everything).dump_json(self.all).decode()}, "durations": {durations}}}'

    def load(self, data: Any) -> None:
        self.all = adapter_for(Everything).validate_python(data["all"])
        self.durations.load(data["durations"])
        self.index = indexed(self.all.tasks, self.all.nodes, self.all.quotas)

    def lane(self, name: str) -> Lane:
        if name not in self.all.lanes:
            self.all.lanes[name] = Lane(pressure=dict(self.all.pressure))
        return self.all.lanes[name]

    def node(self, name: str) -> Node:
        return self.all.nodes.setdefault(name, Node())

    def seats(self, node: str) -> Seats:
        return self.all.seats.get(node, Seats())

    def quota(self, kind: str) -> Quota:
        return self.all.quotas.get(kind, Quota())

    def share(self, lane: str) -> float:
        """The lane's planned share, never 0: an even part before the first plan names it."""
        planned = self.all.plan.shares.get(lane)
        return max(LEAST_SHARE, 1 / max(1, len(self.all.lanes)) if planned is None else planned)

    def apply(self, recorded: Recorded) -> None:
        fact = recorded.fact
        match fact.owner, fact.entity:
            case "selfplay-orch", "task":
                self._task(recorded)
            case "selfplay-orch", "node":
                self.all.seats[fact.id] = evolve_seats(self.seats(fact.id), recorded)
            case "selfplay-orch", "quota":
                self.all.quotas[fact.id] = evolve_quota(self.quota(fact.id), recorded)
                if isinstance(fact, SpawnAdmitted):
                    self.index.admitted(fact.kind, fact.task, fact.freed)
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

    # ---- tasks

    def _task(self, recorded: Recorded) -> None:
        fact = recorded.fact
        if fact.id in self.all.outside or (isinstance(fact, TaskRequested) and fact.spec.outside):
            self._outside(recorded)
            return
        before = self.all.tasks.get(fact.id, Task())
        task = evolve(before, recorded)
        match fact:
            case TaskFinished(superseded=False) as done:
                self._succeeded(before, done)
            case TaskFailed(reason=reason):
                self._failed(before, recorded.at)
                self._stop(fact.id, before, reason, recorded.at)
            case TaskCancelled(reason=reason):
                self._stop(fact.id, before, reason, recorded.at, ordered=True)
            case TaskAssigned(node=node) if before.spec is not None:
                self._placed(before, node, recorded.at)
        if task.open:
            self.all.tasks[fact.id] = task
        else:
            self.all.tasks.pop(fact.id, None)
        self.index.task(fact.id, before, task, self.all.nodes)

    def _outside(self, recorded: Recorded) -> None:
        """Work in its caller's own process takes no seat; only its timeout can end it."""
        name = recorded.fact.id
        task = evolve(self.all.outside.get(name, Task()), recorded)
        if task.open:
            self.all.outside[name] = task
        else:
            self.all.outside.pop(name, None)

    def _placed(self, task: Task, node: str, at: datetime) -> None:
        assert task.spec is not None
        name, kind = task.spec.lane, task.spec.kind
        for about in (denial_key(name, ""), denial_key("", node), denial_key("", "")):
            self.all.placed_at[f"{kind} {about}"] = at
        if kind == "selfplay" and name in self.all.lanes:
            lane = self.all.lanes[name]
            self.all.clock = max(self.all.clock, lane.served)
            target_s = lane.spec.task_target_s if lane.spec else 1.0
            lane.served = self.all.clock + target_s / self.share(name)

    def _succeeded(self, task: Task, done: TaskFinished) -> None:
        found = done.evidence.get("games", 0)
        games = found if isinstance(found, int) else 0
        if done.kind == "selfplay":
            self.lane(done.lane).played += games
        node = self.all.nodes.get(task.node)
        # what gave way half-way says nothing of how long the whole takes
        whole = all(file.role != "checkpoint" for file in done.files)
        if node is not None and whole:
            self.durations.note(done.kind, done.lane, node.node_class, done.seconds, games)

    def _failed(self, task: Task, at: datetime) -> None:
        """A node cools down after a failure while all is as it should be: not when the cluster halts or the node leaves."""
        node = self.all.nodes.get(task.node)
        if node is None or not node.usable or self.all.cluster == "halted":
            return
        node.failed_at = at

    def _stop(self, name: str, task: Task, reason: str, at: datetime, *, ordered: bool = False) -> None:
        if not task.running:
            return
        kept = {k: one for k, one in self.all.stopping.items() if (at - one.at).total_seconds() < STOPPING_KEPT_S}
        stop = Stop(name, task.node, task.attempt, reason, at, ordered, task.iteration)
        self.all.stopping = kept | {f"{name}-{task.attempt}": stop}

    # ---- what others decided

    def _health(self, recorded: Recorded) -> None:
        at = recorded.at
        match recorded.fact:
            case health.NodeJoined() as fact:
                known = self.all.nodes.get(fact.node)
                same = known is not None and known.boot == fact.boot
                self.all.nodes[fact.node] = Node(
                    fact.boot, "healthy" if fact.compatible else "incompatible", False, fact.seats, fact.kinds,
                    fact.gpus, fact.cores, fact.ephemeral, known.joined_at if known and same else at, at,
                    # health closes it with the node's next life, and not before
                    breaker=known.breaker if known and same else Breaker(),
                )  # fmt: skip
            case health.NodeSuspected(node=node):
                self._turn(node, "suspected", at)
            case health.NodeRecovered(node=node):
                self._turn(node, "draining" if self.node(node).draining else "healthy", at)
            case health.NodeDraining(node=node):
                self.node(node).draining = True
                self._turn(node, "draining", at)
            case health.NodePreemptionNoticed(node=node):
                self.node(node).draining = True
                self._turn(node, "preempted", at)
            case health.NodeRetired(node=node):
                self._turn(node, "retired", at)
            case health.NodeDrained(node=node):
                self._lived(self.node(node), at)
                self._turn(node, "drained", at)
            case health.NodeLost(node=node):
                self._lived(self.node(node), at)
                self._turn(node, "lost", at)
            case health.CapacityRetargeted(node=node, seats=seats):
                self.node(node).seats = seats
            case health.BackpressureChanged(lane=lane, name=name, factor=factor):
                for one in self.all.lanes.values() if lane == ALL_LANES else (self.lane(lane),):
                    one.pressure[name] = factor
                if lane == ALL_LANES:
                    self.all.pressure[name] = factor
            case health.BreakerOpened() as fact:
                self._breaker(fact, Breaker(fact.failures, fact.limit, fact.until))
            case health.BreakerClosed() as fact:
                self._breaker(fact, None)
            case health.ObservationLost(until=until):
                self.all.blind_until = until
            case health.ObservationRegained():
                self.all.blind_until = None
            case health.ClusterSwitched(state=state, revision=revision):
                self.all.cluster, self.all.revision, self.all.switched_at = state, revision, at
        match recorded.fact.entity:
            case "node":
                self.index.node(recorded.fact.id, self.all.nodes.get(recorded.fact.id))
                self.index.recheck_node(recorded.fact.id)
            case "queue":
                self.index.recheck_lane(str(getattr(recorded.fact, "lane", "")))

    def _breaker(self, fact: health.BreakerOpened | health.BreakerClosed, breaker: Breaker | None) -> None:
        match fact.scope:
            case "node":
                self.node(fact.node).breaker = breaker or Breaker()
            case "kind" if breaker is None:
                self.lane(fact.lane).breakers.pop(fact.kind, None)
            case "kind" if breaker is not None:
                self.lane(fact.lane).breakers[fact.kind] = breaker

    def _turn(self, name: str, state: str, at: datetime) -> None:
        node = self.node(name)
        node.state, node.changed_at = state, at

    def _lived(self, node: Node, at: datetime) -> None:
        """A preempted node drains before it goes: that ends its life as much as silence does."""
        if node.ephemeral and node.joined_at is not None and node.state not in ("lost", "drained"):
            self.all.lives = (*self.all.lives, (at - node.joined_at).total_seconds())[-LIVES_KEPT:]

    def _loop(self, recorded: Recorded) -> None:
        if recorded.fact.entity == "lane":
            self.index.recheck_lane(recorded.fact.id)
        match recorded.fact:
            case pipeline.LaneRegistered(lane=lane, spec=spec) | pipeline.LaneEdited(lane=lane, spec=spec):
                one = self.lane(lane)
                one.spec, one.registered_at = spec, one.registered_at or recorded.at
            case pipeline.LanePaused(lane=lane):
                self.lane(lane).paused = True
            case pipeline.LaneResumed(lane=lane):
                self.lane(lane).paused = False
            case pipeline.IterationOpened(lane=lane) as fact:
                one = self.lane(lane)
                one.iteration, one.training = fact.iteration, False
                one.games_before, one.positions_before = fact.games_before, fact.positions_before
            case pipeline.ExportFinished(lane=lane, quality=quality):
                self.lane(lane).quality = min(1.0, max(0.0, quality))
            case pipeline.TrainingAwaitsSlot(lane=lane) | pipeline.TrainingStarted(lane=lane):
                self.lane(lane).training = True
            case pipeline.TrainingFinished(lane=lane):
                self.lane(lane).training = False
            case pipeline.IterationClosed(lane=lane, iteration=iteration):
                one = self.lane(lane)
                one.iterations, one.training = one.iterations + 1, False
                if one.iteration == iteration:
                    one.iteration = ""

    def _models(self, recorded: Recorded) -> None:
        match recorded.fact:
            case lifecycle.ModelPromoted(lane=lane, artifact=artifact, gate=gate):
                self.lane(lane).model = artifact
                self._answered(lane, gate, recorded.at, plays=True)
            case lifecycle.ModelRejected(lane=lane, gate=gate):
                self._answered(lane, gate, recorded.at, plays=False)
            case lifecycle.ModelRolledBack(lane=lane, artifact=back):
                self.lane(lane).model = back
            case lifecycle.GateOpened(lane=lane, gate=gate):
                one = self.lane(lane)
                one.gates, one.gate_at = (*one.gates, gate)[-GATES_KEPT:], recorded.at
                self.index.recheck_lane(lane)
            case lifecycle.GateDecided(lane=lane) as fact:
                one, passed = self.lane(lane), fact.verdict == "passed"
                gain = fact.statistics.elo if passed and fact.statistics else 0.0
                if fact.by_hand:
                    one.waiting[fact.gate] = gain
                else:
                    one.judged(recorded.at, gain, passed=passed)
            case lifecycle.CurriculumRebalanced(lane=lane, weight=weight):
                self.lane(lane).weight = weight

    def _answered(self, lane: str, gate: str, at: datetime, *, plays: bool) -> None:
        """A person has said whether a model that passed its gate is to play."""
        one = self.lane(lane)
        if gate in one.waiting:
            gain = one.waiting.pop(gate)
            one.judged(at, gain if plays else 0.0, passed=plays)

    def _data(self, recorded: Recorded) -> None:
        match recorded.fact:
            case sync.BatchAdmitted(lane=lane) as fact:
                one = self.lane(lane)
                one.games, one.positions = one.games + fact.games, one.positions + fact.positions
                one.last_games_at = recorded.at
