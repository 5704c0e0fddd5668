"""Invariants of a run while it runs: what has to happen within a bound, and what must never be worse.

Bounds count in quiet time: while a fault lasts, and for a while after it, waiting is no violation.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sparring.contracts import health, lifecycle, pipeline, selfplay_orch, sync, training_slots
from sparring.contracts.base import Fact
from sparring.contracts.parts import ALL_LANES, LEVELS, THROTTLED_BY
from sparring.decider import Recorded
from sparring.invariants import Watch
from sparring.simulation.machines import GIB

if TYPE_CHECKING:
    from sparring.simulation.cluster import Cluster

SETTLE_S, IDLE_S, RESERVED_S, LATE_S, DENIED_S, STILL_S = 90.0, 30.0, 180.0, 120.0, 120.0, 120.0
RESERVED = ("export", "train", "evaluate")
TURNS = 20


@dataclass
class Task:
    kind: str
    lane: str
    state: str
    node: str
    since: float
    timeout_s: float
    retries_at: float = 0.0


@dataclass
class Node:
    state: str = "lost"
    seats: int = 0
    ephemeral: bool = False
    tasks: set[str] = field(default_factory=set)
    idle_since: float | None = None


@dataclass
class Lane:
    spec: Any = None
    paused: bool = False
    open: bool = False
    pressed: dict[str, float] = field(default_factory=dict)
    share: float = 1.0
    overtaken: int = 0

    @property
    def wants(self) -> bool:
        stopped = any(self.pressed.get(name, 1.0) < 1.0 for name in THROTTLED_BY["selfplay"])
        return self.spec is not None and self.spec.enabled and not self.paused and self.open and not stopped


class Watcher:
    """`violations` says what was broken: the invariant, the moment, what was seen. It folds the log by itself, and asks
    the log's own invariants of every fact."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.violations: list[str] = []
        self._log = Watch()
        self._said: set[str] = set()
        self._quiet_from = SETTLE_S
        self.tasks: dict[str, Task] = {}
        self.nodes: dict[str, Node] = defaultdict(Node)
        self.lanes: dict[str, Lane] = defaultdict(Lane)
        self._state = "running"
        self._running: Counter[str] = Counter()
        self._denied: dict[tuple[str, str], tuple[float, str]] = {}
        self._waits: dict[str, tuple[float, str]] = {}
        self._looked_at = 0.0
        self._moved_at = 0.0
        self._on: dict[type[Fact], Callable[[Any, Recorded], None]] = {
            selfplay_orch.TaskRequested: self._requested,
            selfplay_orch.TaskAssigned: self._assigned,
            selfplay_orch.TaskStarted: self._started,
            selfplay_orch.TaskFinished: self._finished,
            selfplay_orch.TaskFailed: self._back,
            selfplay_orch.TaskOrphaned: self._back,
            selfplay_orch.TaskCancelled: self._ended,
            selfplay_orch.TaskAbandoned: self._ended,
            selfplay_orch.TaskDenied: self._was_denied,
            selfplay_orch.LaneSharesPlanned: self._shared,
            health.NodeJoined: self._joined,
            health.CapacityRetargeted: self._retargeted,
            health.NodeSuspected: self._turned("suspected"),
            health.NodeRecovered: self._turned("healthy"),
            health.NodeLost: self._turned("lost"),
            health.NodeDraining: self._turned("draining"),
            health.NodeDrained: self._turned("drained"),
            health.NodePreemptionNoticed: self._turned("preempted"),
            health.NodeRetired: self._turned("retired"),
            health.NodeForgotten: self._turned("forgotten"),
            health.ClusterSwitched: self._switched,
            health.BackpressureChanged: self._pressed,
            pipeline.LaneRegistered: self._spec,
            pipeline.LaneEdited: self._spec,
            pipeline.LanePaused: self._paused,
            pipeline.LaneResumed: self._resumed,
            pipeline.IterationOpened: self._iterates,
            pipeline.IterationClosed: self._closed,
            sync.GamesRecorded: self._waits_for("batch", 3_600.0),
            sync.TransferGranted: self._granted,
            sync.TransferFailed: self._waits_for("batch", 3_600.0),
            sync.BatchAdmitted: self._done("batch"),
            sync.BatchQuarantined: self._done("batch"),
            sync.BatchLost: self._done("batch"),
            training_slots.SlotClaimed: self._held,
            training_slots.SlotRenewed: self._held,
            training_slots.SlotReleased: self._freed,
            training_slots.SlotExpired: self._freed,
            lifecycle.GateOpened: self._waits_for("gate", 7_200.0),
            lifecycle.GateDecided: self._done("gate"),
        }

    # ---- what is said

    @property
    def now(self) -> float:
        return self._cluster.timeline.now

    def disturbed(self, until: float) -> None:
        self._quiet_from = max(self._quiet_from, until + SETTLE_S)

    def _violated(self, name: str, about: str, text: str) -> None:
        if f"{name} {about}" not in self._said:
            self._said.add(f"{name} {about}")
            self.violations.append(f"{name}: at {self.now:.1f} s, sequence {self._cluster.ledger.end}: {text}")

    def any_task(self, rng: random.Random) -> str:
        """One of the open tasks; '' when there is none."""
        return rng.choice(sorted(self.tasks)) if self.tasks else ""

    # ---- facts

    def apply(self, one: Recorded) -> None:
        self.violations += [f"{text}, at {self.now:.1f} s" for text in self._log.apply(one)]
        found = self._on.get(type(one.fact))
        if found is not None:
            found(one.fact, one)
        if one.fact.entity == "iteration":
            self._deadline(one)

    def _requested(self, fact: selfplay_orch.TaskRequested, _: Recorded) -> None:
        spec = fact.spec
        self.tasks[fact.task] = Task(spec.kind, spec.lane, "requested", "", self.now, spec.timeout_s)

    def _assigned(self, fact: selfplay_orch.TaskAssigned, _: Recorded) -> None:
        task, node = self.tasks.get(fact.task), self.nodes[fact.node]
        if task is None:
            self._violated("tasks are placed after they were asked for", fact.task, f"{fact.task} was never requested")
            return
        task.state, task.node, task.since = "assigned", fact.node, self.now
        self._running[task.kind] += 1
        node.tasks.add(fact.task)
        node.idle_since = None
        if task.kind == "selfplay":
            self._turn(task.lane)

    def _turn(self, served: str) -> None:
        for name, lane in self.lanes.items():
            lane.overtaken = lane.overtaken + 1 if name != served and lane.wants else 0
            if lane.overtaken > 4 / max(lane.share, 0.01) + TURNS and self.now > self._quiet_from:
                self._violated("no lane is unserved longer than its bound", name,
                               f"{name} with share {lane.share:.3f} was passed over {lane.overtaken} times")  # fmt: skip

    def _started(self, fact: selfplay_orch.TaskStarted, _: Recorded) -> None:
        task = self.tasks.get(fact.task)
        if task is not None:
            task.state, task.since = "started", self.now

    def _freed_seat(self, name: str) -> Task | None:
        task = self.tasks.get(name)
        if task is not None and task.state in ("assigned", "started"):
            self._running[task.kind] -= 1
            self.nodes[task.node].tasks.discard(name)
        return task

    def _finished(self, fact: selfplay_orch.TaskFinished, one: Recorded) -> None:
        self._moved_at = self.now
        if not fact.superseded:
            self._ended(fact, one)

    def _ended(self, fact: Any, _: Recorded) -> None:
        self._freed_seat(fact.task)
        self.tasks.pop(fact.task, None)

    def _back(self, fact: selfplay_orch.TaskFailed | selfplay_orch.TaskOrphaned, _: Recorded) -> None:
        task = self._freed_seat(fact.task)
        if task is not None:
            task.state, task.node, task.since = "requested", "", self.now

    def _was_denied(self, fact: selfplay_orch.TaskDenied, _: Recorded) -> None:
        self._denied[fact.kind, fact.node] = (self.now, fact.reason)

    def _shared(self, fact: selfplay_orch.LaneSharesPlanned, _: Recorded) -> None:
        for one in fact.shares:
            self.lanes[one.lane].share = one.share

    def _joined(self, fact: health.NodeJoined, _: Recorded) -> None:
        node = self.nodes[fact.node]
        node.state, node.seats, node.ephemeral = (
            "healthy" if fact.compatible else "incompatible",
            fact.seats,
            fact.ephemeral,
        )

    def _retargeted(self, fact: health.CapacityRetargeted, _: Recorded) -> None:
        self.nodes[fact.node].seats = fact.seats

    def _turned(self, state: str) -> Callable[[Any, Recorded], None]:
        def turn(fact: Any, _: Recorded) -> None:
            self.nodes[fact.node].state, self.nodes[fact.node].idle_since = state, None

        return turn

    def _switched(self, fact: health.ClusterSwitched, _: Recorded) -> None:
        self._state = fact.state
        self.disturbed(self.now)

    def _pressed(self, fact: health.BackpressureChanged, one: Recorded) -> None:
        for lane in list(self.lanes) if fact.lane == ALL_LANES else (fact.lane,):
            self.lanes[lane].pressed[fact.name] = fact.factor
        if fact.depth is None:
            return
        least = sum(fact.depth >= limit for limit in (fact.soft, max(fact.soft, 0.9 * fact.hard), fact.hard))
        if LEVELS.index(fact.level) < least:
            self._violated("worse input is never a milder level", fact.queue,
                           f"{one.sequence}: depth {fact.depth} of {fact.soft}/{fact.hard} is {fact.level}")  # fmt: skip

    def _spec(self, fact: pipeline.LaneRegistered | pipeline.LaneEdited, _: Recorded) -> None:
        self.lanes[fact.lane].spec = fact.spec

    def _paused(self, fact: pipeline.LanePaused, _: Recorded) -> None:
        self.lanes[fact.lane].paused = True

    def _resumed(self, fact: pipeline.LaneResumed, _: Recorded) -> None:
        self.lanes[fact.lane].paused, self.lanes[fact.lane].overtaken = False, 0

    def _iterates(self, fact: pipeline.IterationOpened, _: Recorded) -> None:
        self.lanes[fact.lane].open = True

    def _closed(self, fact: pipeline.IterationClosed, _: Recorded) -> None:
        self._waits.pop(f"iteration {fact.iteration}", None)

    # ---- deadlines

    def _deadline(self, one: Recorded) -> None:
        deadline: datetime | None = getattr(one.fact, "deadline_at", None)
        if deadline is not None:
            left_s = (deadline - one.at).total_seconds()
            # a gate that is late is closed within its own grace time
            self._waits[f"iteration {one.fact.id}"] = (self.now + left_s + 600.0, type(one.fact).__name__)

    def _waits_for(self, what: str, seconds: float) -> Callable[[Any, Recorded], None]:
        def wait(fact: Any, _: Recorded) -> None:
            self._waits[f"{what} {getattr(fact, what)}"] = (self.now + seconds, type(fact).__name__)

        return wait

    def _granted(self, fact: sync.TransferGranted, one: Recorded) -> None:
        left_s = (fact.until - one.at).total_seconds()
        self._waits[f"batch {fact.batch}"] = (self.now + left_s, "TransferGranted")

    def _done(self, what: str) -> Callable[[Any, Recorded], None]:
        return lambda fact, _: self._waits.pop(f"{what} {getattr(fact, what)}", None) and None

    def _held(self, fact: Any, one: Recorded) -> None:
        self._waits[f"slot {fact.lane}"] = (self.now + (fact.until - one.at).total_seconds(), type(fact).__name__)

    def _freed(self, fact: Any, _: Recorded) -> None:
        self._waits.pop(f"slot {fact.lane}", None)

    # ---- after every event of the clock

    def look(self) -> None:
        """Everything that must have happened by now; once a virtual second."""
        if self.now <= self._quiet_from or self._state != "running":
            return
        self._seats_are_filled()
        if self.now - self._looked_at >= 10.0:
            self._looked_at = self.now
            self._shares_are_kept()
            self._nothing_is_late()
            self._the_loop_goes_on()

    def _has_a_reason(self, kind: str, node: str) -> bool:
        said = [self._denied.get((kind, name)) for name in (node, "")]
        return any(one is not None and self.now - one[0] < DENIED_S for one in said)

    def _seats_are_filled(self) -> None:
        if not any(lane.wants for lane in self.lanes.values()):
            return
        for name, node in self.nodes.items():
            agent = self._cluster.agents[name]
            fit = agent.reachable and not agent.draining and agent.machine.disk_free_bytes > GIB
            if node.state != "healthy" or not fit or len(node.tasks) >= node.seats:
                node.idle_since = None
                continue
            if node.idle_since is None:
                node.idle_since = self.now
            idle_s = self.now - max(node.idle_since, self._quiet_from)
            if idle_s > IDLE_S and not self._has_a_reason("selfplay", name):
                self._violated("a freed seat is filled while work is there", name,
                               f"{name} runs {len(node.tasks)} of {node.seats} for {idle_s:.0f} s")  # fmt: skip

    def _shares_are_kept(self) -> None:
        lasting = any(one.state == "healthy" and not one.ephemeral for one in self.nodes.values())
        for name, task in self.tasks.items():
            if task.state != "requested" or task.kind not in RESERVED or self._running[task.kind] or not lasting:
                continue
            waits_s = self.now - max(task.since, self._quiet_from)
            if waits_s > RESERVED_S and not self._has_a_reason(task.kind, ""):
                self._violated("reserved shares are kept", name,
                               f"{name} waits for {waits_s:.0f} s while no {task.kind} runs")  # fmt: skip

    def _nothing_is_late(self) -> None:
        for about, (until, fact) in self._waits.items():
            if self.now > max(until, self._quiet_from) + LATE_S and not self._excused(about):
                self._violated("no entity is without a next deadline", about,
                               f"{about} stands since its {fact}, due {self.now - until:.0f} s ago")  # fmt: skip
        for name, task in self.tasks.items():
            most_s = {"assigned": 120.0, "started": task.timeout_s + 60.0}.get(task.state, 86_400.0)
            if self.now > max(task.since + most_s, self._quiet_from) + LATE_S:
                self._violated("no entity is without a next deadline", f"task {name}",
                               f"{name} is {task.state} for {self.now - task.since:.0f} s")  # fmt: skip

    def _the_loop_goes_on(self) -> None:
        longest_s = STILL_S + 5 * max((one.spec.task_target_s for one in self.lanes.values() if one.spec), default=0.0)
        still_s = self.now - max(self._moved_at, self._quiet_from)
        plays = any(lane.spec and lane.spec.enabled and not lane.paused for lane in self.lanes.values())
        if still_s > longest_s and plays:
            self._violated("the loop goes on", "", f"no task finished for {still_s:.0f} s")

    def _excused(self, about: str) -> bool:
        """A batch on a node that is gone waits until nobody can hope any more."""
        return about.startswith("batch ") and any(node.state != "healthy" for node in self.nodes.values())
