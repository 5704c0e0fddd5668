"""A simulated node-agent: obeys, beats, reports, keeps what it produced until custody is confirmed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sparring import __version__
from sparring.contracts import fingerprint
from sparring.contracts.base import Order
from sparring.contracts.node_agent import DrainAgent, HaltNode, ReleaseCustody, StartTask, StopTask, UploadBatch
from sparring.contracts.parts import Artifact
from sparring.contracts.readings import Heartbeat, RunningTask
from sparring.contracts.selfplay_orch import ReportTaskFailed, ReportTaskFinished, ReportTaskStarted
from sparring.contracts.sync import RecordGames, ReportStored, ReportTransferFailed
from sparring.contracts.training_slots import RenewSlot
from sparring.decider import Reading, Recorded
from sparring.simulation.machines import GIB, Machine
from sparring.simulation.timeline import rng_of
from sparring.simulation.yields import games_of, result_of

if TYPE_CHECKING:
    from sparring.simulation.cluster import Cluster

BEAT_S, AGAIN_S, RENEW_S, SLOT_LEASE_S, KEPT_S, STOP_S = 5.0, 10.0, 30.0, 90.0, 900.0, 1.0
ENDINGS = ("TaskFinished", "TaskFailed", "TaskOrphaned", "TaskCancelled", "TaskAbandoned")
STORED = ("BatchStored", "BatchAdmitted", "BatchQuarantined", "BatchRetired")


@dataclass(slots=True)
class Running:
    """A task on this node, listed in every beat until its outcome is seen."""

    order: StartTask
    began: float
    seconds: float
    working: bool = True
    slot_until: float = math.inf

    @property
    def key(self) -> str:
        return f"{self.order.task}-{self.order.attempt}"


@dataclass(slots=True)
class Outcome:
    """An order that waits until a fact among `names` answers it."""

    order: Order
    key: str
    attempt: int
    names: tuple[str, ...]
    correlation: str
    running: Running | None = None
    id: str = ""
    seen: bool = False


@dataclass(slots=True)
class Version:
    """What the node's beats say from a moment on."""

    since: float
    running: tuple[Running, ...]
    draining: bool
    spooled: int
    beat: Heartbeat | None = None


@dataclass
class Agent:
    """One node. `cut_at` is when it was cut off from the server, `gone_at` when it died or left."""

    cluster: Cluster
    machine: Machine
    life: int = 0
    boot_at: float = 0.0
    cut_at: float = math.inf
    gone_at: float = math.inf
    draining: bool = False
    running: dict[str, Running] = field(default_factory=dict)
    known: set[str] = field(default_factory=set)
    spool: dict[str, Outcome] = field(default_factory=dict)
    custody: dict[str, RecordGames] = field(default_factory=dict)
    mailbox: list[tuple[str, Order]] = field(default_factory=list)
    versions: list[Version] = field(default_factory=list)
    heard: Reading | None = None
    busy_s: float = 0.0
    wasted_s: float = 0.0

    @property
    def name(self) -> str:
        return self.machine.name

    @property
    def boot(self) -> str:
        return f"{self.machine.name}-b{self.life}"

    @property
    def alive(self) -> bool:
        return self.gone_at == math.inf

    @property
    def reachable(self) -> bool:
        return self.gone_at == math.inf and self.cut_at == math.inf

    # ---- beats

    def changed(self) -> None:
        now, versions = self.cluster.timeline.now, self.versions
        while len(versions) > 1 and versions[1].since < now - BEAT_S:
            versions.pop(0)
        fresh = Version(now, tuple(self.running.values()), self.draining, len(self.spool) + len(self.custody))
        if versions and versions[-1].since == now:
            versions[-1] = fresh
        else:
            versions.append(fresh)

    def reading(self, now: float) -> Reading | None:
        """The last beat that was heard, as of `now`; beats come every 5 s from the boot on."""
        heard_until = min(now, self.cut_at, self.gone_at)
        if heard_until < self.boot_at or not self.versions:
            return self._older(now)
        at = self.boot_at + BEAT_S * math.floor((heard_until - self.boot_at) / BEAT_S)
        version = self.versions[-1]
        if version.since > at:
            version = next((one for one in reversed(self.versions) if one.since <= at), self.versions[0])
        if version.beat is None:
            version.beat = self._beat(version)
        return Reading(version.beat, now - at) if now - at < KEPT_S else None

    def _older(self, now: float) -> Reading | None:
        """What an earlier life said last; `age_s` of it is the moment of that beat."""
        if self.heard is None or now - self.heard.age_s >= KEPT_S:
            return None
        return Reading(self.heard.data, now - self.heard.age_s)

    def _beat(self, version: Version) -> Heartbeat:
        machine = self.machine
        listed = tuple(
            RunningTask.model_construct(
                task=one.order.task, attempt=one.order.attempt, kind=one.order.spec.kind, lane=one.order.spec.lane,
                for_s=round(version.since - one.began, 1), done=None,
            )
            for one in version.running
        )  # fmt: skip
        return Heartbeat.model_construct(
            node=machine.name, boot=self.boot, build=__version__, contracts=fingerprint(),
            ephemeral=machine.kind.ephemeral, tags=(), kinds=(), machine=machine.name, seats=machine.seats,
            running=listed, spooled=version.spooled, spooled_bytes=0, draining=version.draining,
            up_s=round(version.since - self.boot_at, 1),
            resources=machine.resources(sum(one.working for one in version.running)),
        )  # fmt: skip

    # ---- life

    def start(self) -> None:
        """A new life of this agent: what the disk kept is still there, what ran is reported."""
        now = self.cluster.timeline.now
        if self.versions:
            last = self.reading(now)
            self.heard = Reading(last.data, now - last.age_s) if last is not None else None
        self.life += 1
        self.boot_at, self.gone_at, self.cut_at, self.draining = now, math.inf, math.inf, False
        self.versions = []
        self.known = set()
        left, self.running = list(self.running.values()), {}
        for one in left:
            report = ReportTaskFailed(task=one.order.task, attempt=one.order.attempt, node=self.name,
                                      reason="the agent restarted")  # fmt: skip
            self._put(report, f"restarted-{one.key}", one.order.attempt, ENDINGS, "")
        self.changed()
        for outcome in list(self.spool.values()):
            self._send(outcome)
        self._empty_mailbox()
        self.cluster.node_moved()

    def die(self, *, disk_lost: bool) -> None:
        """Gone at once; without its disk the games and outcomes on it are lost."""
        now = self.cluster.timeline.now
        self.gone_at = min(self.gone_at, now)
        self.cluster.node_moved()
        for one in self.running.values():
            if one.working:
                self._account(one, wasted=True)
                one.working = False
        self.cluster.chronicle.node_gone(self.name, now)
        if disk_lost:
            for outcome in self.spool.values():
                outcome.seen = True
            self.spool.clear()
            self.custody.clear()
            self.running.clear()

    def drain(self, grace_s: float, *, then_s: float = math.inf, disk_lost: bool = False) -> None:
        """Partial results count; everything is brought to the store within the grace time, then the agent leaves and
        comes back after `then_s`."""
        if self.draining or not self.alive:
            return
        self.draining = True
        self.changed()
        self.cluster.node_moved()
        for one in list(self.running.values()):
            self._stop(one, "the node drains")
        self.cluster.timeline.after(1.0, self._leave, self.boot, self.cluster.timeline.now + grace_s, then_s, disk_lost)

    def _leave(self, boot: str, until: float, then_s: float, disk_lost: bool) -> None:
        if boot != self.boot or not self.alive:
            return
        now = self.cluster.timeline.now
        quiet = not self.running and not self.spool and not (self.machine.kind.ephemeral and self.custody)
        if now < until and not (quiet and now - self.versions[-1].since > 2 * BEAT_S):
            self.cluster.timeline.after(1.0, self._leave, boot, until, then_s, disk_lost)
            return
        self.die(disk_lost=disk_lost)
        if then_s < math.inf:
            self.cluster.timeline.after(then_s, self.cluster.boot, self, self.life)

    def cut_off(self) -> None:
        if self.reachable:
            self.cut_at = self.cluster.timeline.now
            self.cluster.node_moved()

    def rejoin(self) -> None:
        """The partition is over: what the spool kept is sent, what was ordered meanwhile arrives."""
        if not self.alive or self.cut_at == math.inf:
            return
        self.cut_at = math.inf
        self.cluster.node_moved()
        for outcome in list(self.spool.values()):
            if self.cluster.answered(outcome):
                self.seen(outcome)
            else:
                self._send(outcome)
        self._empty_mailbox()

    def _empty_mailbox(self) -> None:
        waiting, self.mailbox = self.mailbox, []
        for id, order in waiting:
            self.cluster.timeline.after(0.0, self.on_order, id, order)

    # ---- orders

    def on_order(self, id: str, order: Order) -> None:
        if not self.reachable:
            self.mailbox.append((id, order))
            return
        match order:
            case StartTask():
                self._start(order)
            case StopTask(task=task, attempt=attempt, reason=reason):
                running = self.running.get(f"{task}-{attempt}")
                if running is not None:
                    self._stop(running, reason)
            case UploadBatch():
                self._upload(order)
            case ReleaseCustody(batch=batch):
                if self.custody.pop(batch, None) is not None:
                    self.changed()
            case HaltNode(reason=reason):
                for running in list(self.running.values()):
                    self._end(running, f"halted: {reason}")
            case DrainAgent(grace_s=grace_s):
                self.drain(grace_s, then_s=self.cluster.setup.churn.away_s)

    def _start(self, order: StartTask) -> None:
        key = f"{order.task}-{order.attempt}"
        if order.boot != self.boot or key in self.known or self.draining:
            return
        cluster, spec = self.cluster, order.spec
        self.known.add(key)
        rng = rng_of(cluster.setup.seed, order.task, order.attempt)
        running = Running(order, cluster.timeline.now, cluster.setup.work.seconds(spec, self.machine, rng))
        self.running[key] = running
        self.changed()
        report = ReportTaskStarted(task=order.task, attempt=order.attempt, node=self.name)
        self._put(report, f"started-{key}", order.attempt, ("TaskStarted", *ENDINGS), spec.iteration)
        if spec.exclusive and spec.slot_token:
            running.slot_until = cluster.timeline.now + SLOT_LEASE_S
            self._guard_slot(running, self.boot)
        in_time = min(running.seconds, spec.timeout_s)
        cluster.timeline.after(in_time, self._done, running, self.boot)

    def _guard_slot(self, running: Running, boot: str) -> None:
        """Renews the training slot; past its own deadline the child ends, whatever the network says."""
        if boot != self.boot or not running.working or not self.alive:
            return
        now, spec = self.cluster.timeline.now, running.order.spec
        if now >= running.slot_until:
            self._end(running, "the training slot could not be renewed")
            return
        if self.reachable and spec.slot_token:
            order = RenewSlot(lane=spec.lane, token=spec.slot_token)
            id = f"renew-{spec.slot_token}-{int(now // RENEW_S)}"
            self.cluster.publish(order, id, self.name, correlation=spec.iteration, expires_s=RENEW_S)
        self.cluster.timeline.after(RENEW_S, self._guard_slot, running, boot)

    def renewed(self, token: int) -> None:
        for one in self.running.values():
            if one.order.spec.slot_token == token:
                one.slot_until = self.cluster.timeline.now + SLOT_LEASE_S

    def _stop(self, running: Running, reason: str) -> None:
        """The program gets a moment to write partial results."""
        if running.working:
            self.cluster.timeline.after(STOP_S, self._stopped, running, self.boot, reason)

    def _stopped(self, running: Running, boot: str, reason: str) -> None:
        if boot != self.boot or not running.working or not self.alive:
            return
        share = (self.cluster.timeline.now - running.began) / max(running.seconds, 0.1)
        if running.order.spec.kind == "selfplay" and games_of(running.order.spec, share) > 0:
            self._finish(running, share)
        else:
            self._end(running, reason)

    # ---- outcomes

    def _done(self, running: Running, boot: str) -> None:
        if boot != self.boot or not running.working or not self.alive:
            return
        order, work = running.order, self.cluster.setup.work
        rng = rng_of(self.cluster.setup.seed, "fails", order.task, order.attempt)
        if running.seconds > order.spec.timeout_s:
            self._end(running, f"ran longer than {order.spec.timeout_s:.0f} s")
        elif self.machine.disk_free_bytes < GIB:
            self._end(running, "no space left on device")
        elif rng.random() < work.failing:
            self._end(running, "exit code 1")
        else:
            self._finish(running, 1.0)

    def _end(self, running: Running, reason: str) -> None:
        if not running.working:
            return
        running.working = False
        self._account(running, wasted=True)
        order = running.order
        report = ReportTaskFailed(task=order.task, attempt=order.attempt, node=self.name, reason=reason)
        self._put(report, f"failed-{running.key}", order.attempt, ENDINGS, order.spec.iteration, running)

    def _finish(self, running: Running, share: float) -> None:
        running.working = False
        self._account(running, wasted=False)
        order, seconds = running.order, self.cluster.timeline.now - running.began
        files: Sequence[Artifact]
        files, evidence = result_of(self.cluster, order, share)
        if order.spec.kind == "selfplay":
            self._record(running, files[0], evidence)
        report = ReportTaskFinished(task=order.task, attempt=order.attempt, node=self.name, seconds=seconds,
                                    files=tuple(files), evidence=evidence)  # fmt: skip
        self._put(report, f"finished-{running.key}", order.attempt, ENDINGS, order.spec.iteration, running)

    def _account(self, running: Running, *, wasted: bool) -> None:
        seconds = self.cluster.timeline.now - running.began
        self.busy_s += seconds
        if wasted:
            self.wasted_s += seconds
        self.cluster.note_run(self, running, wasted)

    def _record(self, running: Running, games: Artifact, evidence: dict[str, object]) -> None:
        order, spec = running.order, running.order.spec
        record = RecordGames(
            batch=running.key, lane=spec.lane, task=order.task, attempt=order.attempt, node=self.name,
            ephemeral=self.machine.kind.ephemeral, model=spec.model, sha256=games.sha256, bytes=games.bytes,
            games=evidence["games"], positions=evidence["positions"], check=self.cluster.check_of(evidence),
        )  # fmt: skip
        self.custody[running.key] = record
        self._put(record, f"record-{running.key}", order.attempt, ("GamesRecorded", "GamesRefused"), spec.iteration)

    def _upload(self, order: UploadBatch) -> None:
        kept = self.custody.get(order.batch)
        if kept is None:
            self._not_uploaded(order, "missing", "the node has no such batch")
            return
        seconds = 8 * kept.bytes / min(self.machine.bits_per_s, 8.0 * order.bytes_per_s) + 0.05
        if seconds > order.lease_s:
            self.cluster.timeline.after(order.lease_s, self._not_uploaded, order, "failed", "TimeoutError")
            return
        self.cluster.timeline.after(seconds, self._uploaded, order, self.boot)

    def _not_uploaded(self, order: UploadBatch, why: str, reason: str) -> None:
        missing = why == "missing"
        report = ReportTransferFailed(batch=order.batch, grant=order.grant, reason=reason, missing=missing)
        self._put(report, f"{why}-{order.batch}-{order.grant}", 0, ("TransferFailed", *STORED), "")

    def _uploaded(self, order: UploadBatch, boot: str) -> None:
        kept = self.custody.get(order.batch)
        if boot != self.boot or not self.reachable or kept is None:
            return
        url = self.cluster.store.put(kept.sha256, kept.bytes)
        report = ReportStored(batch=order.batch, node=self.name, url=url, sha256=kept.sha256, bytes=kept.bytes)
        self._put(report, f"stored-{order.batch}-{order.grant}", 0, STORED, "")

    # ---- the spool

    def _put(
        self, order: Order, key: str, attempt: int, names: tuple[str, ...], correlation: str,
        running: Running | None = None,
    ) -> None:  # fmt: skip
        outcome = Outcome(order, key, attempt, names, correlation, running, key)
        self.spool[key] = outcome
        self.cluster.await_answer(self, outcome)
        self._send(outcome)

    def _send(self, outcome: Outcome) -> None:
        if outcome.seen or not self.reachable:
            return
        self.cluster.publish(outcome.order, outcome.id, self.name, correlation=outcome.correlation)
        self.cluster.timeline.after(AGAIN_S, self._again, outcome, self.boot)

    def _again(self, outcome: Outcome, boot: str) -> None:
        if outcome.seen or boot != self.boot or not self.reachable:
            return
        if self.cluster.answered(outcome):
            self.seen(outcome)
        else:
            self._send(outcome)

    def seen(self, outcome: Outcome) -> None:
        """The owner's fact is there: the outcome leaves the spool, its task leaves the beats."""
        outcome.seen = True
        self.spool.pop(outcome.key, None)
        running = outcome.running
        if running is not None and self.running.get(running.key) is running:
            del self.running[running.key]
        self.changed()

    def on_answer(self, outcome: Outcome, one: Recorded) -> bool:
        """Takes the fact in when it answers the outcome; says whether it did. What comes while cut off is found later."""
        if not self.reachable:
            return False
        fact = one.fact
        if one.order != outcome.id:
            attempt = vars(fact).get("attempt", outcome.attempt)
            if type(fact).__name__ not in outcome.names or attempt < outcome.attempt:
                return False
        self.seen(outcome)
        return True
