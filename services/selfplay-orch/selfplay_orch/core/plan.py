"""Keeps every node busy: ends what is lost, places what others asked for, fills what is free with self-play."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from selfplay_orch.core.limits import NODE, PLAN, QUOTA, Plan, Quota, Seats, spawn_rate_left
from selfplay_orch.core.picture import Lane, Node, WorkPicture
from selfplay_orch.core.shares import shares
from selfplay_orch.core.task import TASK, Task, abandoned
from sparring.contracts.base import Fact
from sparring.contracts.node_agent import HaltNode, StartTask, StopTask
from sparring.contracts.parts import TaskSpec, Term
from sparring.contracts.readings import Heartbeat
from sparring.contracts.selfplay_orch import (
    LaneSharesPlanned,
    SeatTaken,
    SpawnAdmitted,
    TaskAssigned,
    TaskCancelled,
    TaskDenied,
    TaskFailed,
    TaskOrphaned,
    TaskRequested,
)
from sparring.decider import Action, Append, Context, Reading, Send
from sparring.subjects import Ref, token
from sparring.task_specs import task_spec

MOST_A_CALL = 20


@dataclass(frozen=True)
class Denial:
    """The first check that said no, with its numbers."""

    reason: str
    actual: float
    limit: float


def plan(ctx: Context) -> Sequence[Action]:
    picture: WorkPicture = ctx.picture
    work = Work(ctx, picture)
    return [*work.endings(), *work.orders(), *work.shares(), *work.requested(), *work.selfplay()]


class Work:
    """One look at everything; counts what this very call has placed, so that a call never places too much."""

    def __init__(self, ctx: Context, picture: WorkPicture) -> None:
        self.ctx, self.picture, self.settings, self.now = ctx, picture, ctx.settings, ctx.now
        self.all = picture.all
        self.running: dict[str, dict[str, str]] = {name: {} for name in self.all.nodes}
        for name, task in self.all.tasks.items():
            if task.running and task.spec:
                self.running.setdefault(task.node, {})[f"{name}-{task.attempt}"] = task.spec.kind
        self.placed = 0

    # ---- what ended without saying so

    def endings(self) -> Iterable[Action]:
        for name, task in self.all.tasks.items():
            fact = self._ending(name, task)
            if fact is None:
                continue
            facts: list[Fact] = [fact]
            if isinstance(fact, TaskFailed) and fact.retry_at is None:
                facts.append(abandoned(name, task, fact.reason))
            yield _on_task(name, task, facts)

    def _ending(self, name: str, task: Task) -> Fact | None:
        if task.state == "requested":
            if task.expires_at is not None and self.now > task.expires_at:
                return TaskCancelled(task=name, reason="expired before it could be placed")
            return None
        reason = self._orphaned(name, task)
        if reason:
            return TaskOrphaned(task=name, attempt=task.attempt, node=task.node, reason=reason)
        began = task.started_at
        if began is None or task.spec is None or self.now < began + timedelta(seconds=task.spec.timeout_s * 1.1 + 60):
            return None
        over = task.used >= task.max_attempts
        retry_at = None if over else self.now
        return TaskFailed(task=name, attempt=task.attempt, node=task.node, kind=task.spec.kind, lane=task.spec.lane,
                          reason=f"ran longer than {task.spec.timeout_s:.0f} s", retry_at=retry_at)  # fmt: skip

    def _orphaned(self, name: str, task: Task) -> str:
        """A task's lease is its node's beat that lists it."""
        node = self.all.nodes.get(task.node)
        if node is None or node.state in ("lost", "drained"):
            return "the node is lost"
        if node.boot != task.boot:
            return "the node restarted"
        beat = self._beat(task.node)
        if beat is None or beat.age_s > self.settings.beat_fresh_s or beat.data.boot != task.boot:
            return ""
        listed = any(one.task == name and one.attempt == task.attempt for one in beat.data.running)
        known_at = task.started_at or task.assigned_at or self.now
        if listed or (self.now - known_at).total_seconds() < self.settings.lease_s:
            return ""
        return f"not in the node's beat {self.settings.lease_s:.0f} s after it was placed"

    def _beat(self, node: str) -> Reading | None:
        reading = self.ctx.readings.get(f"tel.{token(node)}.heartbeat")
        return reading if reading is not None and isinstance(reading.data, Heartbeat) else None

    # ---- orders to agents

    def orders(self) -> Iterable[Action]:
        for name, task in self.all.tasks.items():
            if task.state == "assigned" and task.spec is not None:
                order = StartTask(node=task.node, boot=task.boot, task=name, attempt=task.attempt, spec=task.spec)
                yield Send(order, key=f"start-{name}-{task.attempt}", correlation=task.spec.iteration)
        for name, (node, attempt) in list(self.all.stopping.items()):
            beat = self._beat(node)
            if beat is not None and not any(one.task == name for one in beat.data.running) and beat.age_s < 5:
                del self.all.stopping[name]
                continue
            yield Send(
                StopTask(node=node, task=name, attempt=attempt, reason="cancelled"), key=f"stop-{name}-{attempt}"
            )
        if self.all.cluster == "halted":
            for name, one in self.all.nodes.items():
                if self.running.get(name):
                    yield Send(
                        HaltNode(node=name, reason="the cluster is halted"),
                        key=f"halt-{name}-{one.boot}-{self.ctx.read_to}",
                    )

    # ---- shares

    def lanes(self) -> dict[str, Lane]:
        """Lanes that self-play may serve."""
        return {
            name: lane
            for name, lane in self.all.lanes.items()
            if lane.spec is not None and lane.spec.enabled and not lane.paused and "selfplay" in lane.spec.commands
        }

    def shares(self) -> Iterable[Action]:
        wanted = shares(self.lanes(), self.now)
        known = self.all.plan
        fresh = {one.lane: one.share for one in wanted}
        moved = set(fresh) != set(known.shares) or any(
            abs(known.shares[lane] - one) > 0.01 for lane, one in fresh.items()
        )
        recently = known.at is not None and (self.now - known.at).total_seconds() < self.settings.replan_s
        if not wanted or not moved or (recently and set(fresh) == set(known.shares)):
            return
        fact, ref = LaneSharesPlanned(shares=wanted, read_to=self.ctx.read_to), PLAN.ref("main")

        def decide(states: Mapping[Ref, Any]) -> Sequence[Fact]:
            state: Plan = states[ref]
            return [fact] if state.at == known.at else []

        yield Append([(PLAN, "main")], decide)

    # ---- placement

    def requested(self) -> Iterable[Action]:
        """What others asked for: lost work first, then the oldest, a newer gate's evaluations before an older one's."""
        waiting = [
            (name, task)
            for name, task in self.all.tasks.items()
            if task.state == "requested" and (task.retry_at is None or task.retry_at <= self.now)
        ]
        waiting.sort(key=lambda one: (not one[1].orphaned, one[1].requested_at or self.now, one[0]))
        for name, task in waiting:
            if self.placed >= MOST_A_CALL or task.spec is None:
                return
            if task.by == "selfplay-orch" and self._lane_blocked(task.spec.lane):
                yield _on_task(name, task, [TaskCancelled(task=name, reason="the lane is throttled or paused")])
                continue
            yield from self._place(name, task.spec, task)

    def _lane_blocked(self, name: str) -> bool:
        lane = self.all.lanes.get(name)
        return lane is None or lane.paused or lane.factor == 0.0

    def selfplay(self) -> Iterable[Action]:
        lanes = {name: lane for name, lane in self.lanes().items() if lane.factor > 0 and lane.iteration}
        for name, lane in self.lanes().items():
            if lane.factor == 0:
                yield from self._deny("selfplay", "", name, Denial("back-pressure", 0.0, 1.0))
        if not lanes or self.all.cluster != "running":
            return
        split = self.all.plan.shares or {name: 1 / len(lanes) for name in lanes}
        usable = sum(node.seats for node in self.all.nodes.values() if node.usable)
        most = {
            name: max(1, round(usable * lane.factor)) if lane.factor < 1 else usable for name, lane in lanes.items()
        }
        serial = self.all.minted
        for node_name, node in self.all.nodes.items():
            while self._free(node_name, node) > 0 and self.placed < MOST_A_CALL:
                choice = self._lane_to_serve(lanes, split, most)
                if choice is None:
                    return
                serial += 1
                before = self.placed
                task = f"{choice}-s{serial}-{self.placed}"
                yield from self._place(task, self._selfplay_spec(task, lanes[choice], node), None, only=node_name)
                if self.placed == before:
                    break

    def _free(self, name: str, node: Node) -> int:
        if not node.usable or (node.kinds and "selfplay" not in node.kinds):
            return 0
        taken = sum(kind == "selfplay" for kind in self.running.get(name, {}).values())
        return min(node.seats, int(self.settings.node_selfplay)) - taken

    def _lane_to_serve(
        self, lanes: Mapping[str, Lane], split: Mapping[str, float], most: Mapping[str, int]
    ) -> str | None:
        """The lane that is furthest below its share."""
        counts = dict.fromkeys(lanes, 0)
        for running in self.running.values():
            for seat, kind in running.items():
                lane = self._lane_of(seat)
                if kind == "selfplay" and lane in counts:
                    counts[lane] += 1
        open_ = [name for name in lanes if counts[name] < most[name]]
        if not open_:
            return None
        # ties go to the lane that has waited longest for games
        return min(
            open_, key=lambda name: ((counts[name] + 1) / max(split.get(name, 0.0), 0.01), lanes[name].games, name)
        )

    def _lane_of(self, seat: str) -> str:
        task = self.all.tasks.get(seat.rpartition("-")[0])
        return task.spec.lane if task and task.spec else seat.partition("-s")[0]

    def _selfplay_spec(self, task: str, lane: Lane, node: Node) -> TaskSpec:
        assert lane.spec is not None
        games = self.picture.durations.games_for(
            lane.spec.name, node.node_class, lane.spec.task_target_s, lane.spec.iteration.games_per_task
        )
        return task_spec(
            lane.spec, "selfplay", task, timeout_s=max(self.settings.selfplay_s, 10 * lane.spec.task_target_s),
            work={"games": games}, inputs={"model": (lane.model,)} if lane.model else {}, iteration=lane.iteration,
            model=lane.model.sha256 if lane.model else "",
        )  # fmt: skip

    def _place(self, name: str, spec: TaskSpec, task: Task | None, only: str = "") -> Iterable[Action]:
        """On the node with the most room, after every check in order; the first that says no is recorded."""
        denial = self._cluster_denies(spec, task)
        if denial is None:
            candidates = []
            for node_name, node in self.all.nodes.items():
                if only and node_name != only:
                    continue
                no = self._node_denies(spec, node_name, node)
                if no is None:
                    candidates.append((len(self.running.get(node_name, {})) / max(1, node.seats), node_name))
                else:
                    denial = no
            if candidates:
                yield self._placement(name, spec, task, min(candidates)[1])
                return
        if denial is not None:
            yield from self._deny(spec.kind, only, spec.lane, denial)

    def _cluster_denies(self, spec: TaskSpec, task: Task | None) -> Denial | None:
        if self.all.cluster != "running" and not (self.all.cluster == "draining" and spec.kind != "selfplay"):
            return Denial(f"cluster {self.all.cluster}", 1.0, 0.0)
        quota = self.picture.quota(spec.kind)
        if (task is None or not task.orphaned) and spawn_rate_left(quota, self.now, self.spawns_per_minute) <= 0:
            return Denial("spawn rate", float(len(quota.spawned)), float(self.spawns_per_minute))
        limit = self.cluster_limit(spec.kind)
        running = sum(kind == spec.kind for one in self.running.values() for kind in one.values())
        return Denial("cluster limit", float(running), float(limit)) if running >= limit else None

    @property
    def spawns_per_minute(self) -> int:
        seats = sum(node.seats for node in self.all.nodes.values() if node.usable)
        return max(int(self.settings.spawns_per_minute), 2 * seats)

    def cluster_limit(self, kind: str) -> int:
        nodes = sum(node.usable for node in self.all.nodes.values())
        dynamic = {"selfplay": max(500, 10 * nodes), "evaluate": max(2, nodes // 10)}
        return dynamic.get(kind, {"train": 3, "tune": 1}.get(kind, 500))

    def _node_denies(self, spec: TaskSpec, name: str, node: Node) -> Denial | None:
        if not node.usable:
            return Denial(f"node {node.state}", 0.0, 1.0)
        if node.kinds and spec.kind not in node.kinds:
            return Denial("kind not taken there", 0.0, 1.0)
        running = self.running.get(name, {})
        same = sum(kind == spec.kind for kind in running.values())
        limit = self.node_limit(spec.kind, node)
        if same >= limit:
            return Denial("node limit", float(same), float(limit))
        # one seat beyond the capacity is reserved for the pipeline's work: self-play never takes it
        most = node.seats if spec.kind == "selfplay" else node.seats + self.settings.reserved_seats
        if len(running) >= most and (spec.kind != "selfplay" or same >= node.seats):
            return Denial("capacity", float(len(running)), float(most))
        if node.ephemeral and spec.kind in ("train", "tune") and not self.settings.train_on_ephemeral:
            return Denial("ephemeral node", 1.0, 0.0)
        if spec.gpu and not node.gpus:
            return Denial("GPU", 0.0, 1.0)
        return self._resources_deny(spec, name)

    def node_limit(self, kind: str, node: Node) -> int:
        if kind == "selfplay":
            return min(node.seats, int(self.settings.node_selfplay))
        return {"train": 1, "transfer": 2, "export": 2, "evaluate": 2}.get(kind, 2)

    def _resources_deny(self, spec: TaskSpec, name: str) -> Denial | None:
        beat = self._beat(name)
        if beat is None:
            return None
        found = beat.data.resources
        memory = 1 - found.memory_available_bytes / max(1, found.memory_total_bytes)
        if memory > self.settings.most_memory or found.memory_available_bytes < spec.memory_bytes:
            return Denial("memory", round(memory, 3), self.settings.most_memory)
        if found.foreign_cpu_share > self.settings.most_cpu:
            return Denial("CPU", round(found.foreign_cpu_share, 3), self.settings.most_cpu)
        reserve = spec.disk_bytes + self.settings.disk_reserve_bytes
        if found.disk_free_bytes < reserve:
            return Denial("disk", float(found.disk_free_bytes), float(reserve))
        return None

    def _terms(self, node: str) -> tuple[Term, ...]:
        beat = self._beat(node)
        if beat is None:
            return ()
        found = beat.data.resources
        return (
            Term(name="CPU of others", value=round(found.foreign_cpu_share, 3), limit=self.settings.most_cpu),
            Term(name="memory free bytes", value=float(found.memory_available_bytes)),
            Term(name="disk free bytes", value=float(found.disk_free_bytes)),
            Term(name="age s", value=round(beat.age_s, 1)),
        )

    def _ended(self, taken: Mapping[str, str]) -> tuple[str, ...]:
        """Seats whose task the picture saw end, or go elsewhere."""
        alive = {seat for one in self.running.values() for seat in one}
        return tuple(seat for seat in taken if seat not in alive)

    def _placement(self, name: str, spec: TaskSpec, task: Task | None, node_name: str) -> Append:
        node, kind = self.all.nodes[node_name], spec.kind
        attempt = (task.attempt if task else 0) + 1
        seat = f"{name}-{attempt}"
        self.running.setdefault(node_name, {})[seat] = kind
        self.placed += 1
        freed_here = self._ended(self.picture.seats(node_name).taken)
        freed = self._ended(self.picture.quota(kind).running)
        seats_limit, quota_limit = self.node_limit(kind, node), self.cluster_limit(kind)
        per_minute = self.spawns_per_minute
        own, place, guard = TASK.ref(name), NODE.ref(node_name), QUOTA.ref(kind)

        def decide(states: Mapping[Ref, Any]) -> Sequence[Fact]:
            now: Task = states[own]
            seats: Seats = states[place]
            quota: Quota = states[guard]
            if (now.state != "requested" or now.attempt != attempt - 1) if task else bool(now.state):
                return []
            taken = {one: what for one, what in seats.taken.items() if one not in freed_here}
            running = {one: where for one, where in quota.running.items() if one not in freed}
            same = sum(what == kind for what in taken.values())
            rate_left = spawn_rate_left(quota, self.now, per_minute)
            if same >= seats_limit or len(running) >= quota_limit or (rate_left <= 0 and not now.orphaned):
                return []
            minted = [] if task else [TaskRequested(task=name, spec=spec, by="selfplay-orch", max_attempts=1)]
            assigned = TaskAssigned(task=name, attempt=attempt, node=node_name, boot=node.boot, seat_limit=seats_limit,
                                    terms=self._terms(node_name))  # fmt: skip
            sat = SeatTaken(node=node_name, task=seat, kind=kind, running=same + 1, limit=seats_limit,
                            freed=tuple(one for one in freed_here if one in seats.taken))  # fmt: skip
            admitted = SpawnAdmitted(kind=kind, task=seat, node=node_name, running=len(running) + 1, limit=quota_limit,
                                     freed=tuple(one for one in freed if one in quota.running))  # fmt: skip
            return [*minted, assigned, sat, admitted]

        return Append([(TASK, name), (NODE, node_name), (QUOTA, kind)], decide, correlation=spec.iteration)

    def _deny(self, kind: str, node: str, lane: str, denial: Denial) -> Iterable[Action]:
        """A standing denial is one fact until its reason changes."""
        key = f"{lane}@{node}"
        if self.picture.quota(kind).denied.get(key) == denial.reason:
            return
        fact = TaskDenied(
            kind=kind, node=node, lane=lane, reason=denial.reason, actual=denial.actual, limit=denial.limit
        )
        ref = QUOTA.ref(kind)

        def decide(states: Mapping[Ref, Any]) -> Sequence[Fact]:
            return [fact] if states[ref].denied.get(key) != denial.reason else []

        yield Append([(QUOTA, kind)], decide)


def _on_task(name: str, task: Task, facts: Sequence[Fact]) -> Append:
    ref = TASK.ref(name)

    def decide(states: Mapping[Ref, Any]) -> Sequence[Fact]:
        now: Task = states[ref]
        return list(facts) if (now.state, now.attempt) == (task.state, task.attempt) else []

    return Append([(TASK, name)], decide, correlation=task.spec.iteration if task.spec else "")
