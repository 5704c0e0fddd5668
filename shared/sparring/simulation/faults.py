"""What goes wrong in a run, by seed: a schedule of faults, each with its moment, target and length."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sparring.contracts.health import DrainNode, SwitchCluster
from sparring.contracts.lifecycle import RollBack
from sparring.contracts.pipeline import PauseLane, ResumeLane
from sparring.contracts.selfplay_orch import BoostLane, CancelTask
from sparring.simulation.machines import GIB
from sparring.simulation.replica import Replica
from sparring.simulation.setup import Setup
from sparring.simulation.timeline import rng_of

if TYPE_CHECKING:
    from sparring.simulation.cluster import Cluster

NODE = ("death", "preempted", "notice", "restarted", "partition", "slow", "disk")
SERVICE = ("crash", "checkpointed", "watcher", "skew", "failover")
WEATHER = ("doubles", "delays", "unacknowledged", "poison")
OPERATOR = ("pause", "boost", "drain", "halt", "rollback", "cancel")
KINDS = (*NODE, *SERVICE, *WEATHER, *OPERATOR)
SERVICES = ("health", "lifecycle", "pipeline", "selfplay-orch", "sync", "training-slots")


@dataclass(frozen=True)
class Fault:
    """`target` is a node, a service or a lane; '' where the whole cluster is meant. Times in virtual seconds."""

    number: int
    kind: str
    at: float
    seconds: float
    target: str = ""

    def __str__(self) -> str:
        where = f" {self.target}" if self.target else ""
        return f"{self.number}: {self.kind}{where} at {self.at:.0f} s for {self.seconds:.0f} s"


def schedule(setup: Setup, seconds: float, count: int, nodes: Sequence[str]) -> tuple[Fault, ...]:
    """`count` faults of all kinds in the first half of the run, all over before its last third."""
    rng = rng_of(setup.seed, "faults")
    lanes = [one.name for one in setup.lanes]
    moments = sorted(rng.uniform(0.08, 0.45) * seconds for _ in range(count))
    return tuple(_drawn(rng, number, at, seconds, nodes, lanes) for number, at in enumerate(moments, start=1))


def _drawn(
    rng: random.Random, number: int, at: float, seconds: float, nodes: Sequence[str], lanes: Sequence[str]
) -> Fault:
    kind = rng.choice(KINDS)
    lasts = round(rng.uniform(5.0, 0.1 * seconds), 1)
    if kind in NODE or kind == "drain":
        return Fault(number, kind, round(at, 1), lasts, rng.choice(nodes))
    if kind in SERVICE:
        target = "health" if kind == "watcher" else rng.choice(SERVICES)
        return Fault(number, kind, round(at, 1), lasts, target)
    if kind in ("pause", "boost", "rollback"):
        return Fault(number, kind, round(at, 1), lasts, rng.choice(lanes))
    return Fault(number, kind, round(at, 1), lasts)


class Faults:
    """Brings a schedule about. A fault of a node that is not there passes without effect."""

    def __init__(self, cluster: Cluster, faults: Sequence[Fault]) -> None:
        self._cluster = cluster
        self._revision = 0
        for fault in faults:
            cluster.timeline.at(fault.at, self._begin, fault)

    def _begin(self, fault: Fault) -> None:
        cluster = self._cluster
        cluster.chronicle.count(f"fault: {fault.kind}")
        cluster.disturb(fault.seconds)
        doing: dict[str, Callable[[Fault], None]] = {
            "crash": self._crash, "checkpointed": self._crash, "watcher": self._watcher, "skew": self._skew,
            "failover": self._failover,
        }  # fmt: skip
        if fault.kind in NODE:
            self._node(fault)
        elif fault.kind in WEATHER:
            self._weather(fault)
        elif fault.kind in OPERATOR:
            self._operator(fault)
        else:
            doing[fault.kind](fault)

    # ---- nodes

    def _node(self, fault: Fault) -> None:
        cluster, agent = self._cluster, self._cluster.agents[fault.target]
        if not agent.alive:
            return
        match fault.kind:
            case "death" | "preempted":
                cluster.chronicle.departure(agent.name, fault.kind, cluster.timeline.now)
                agent.die(disk_lost=fault.kind == "preempted")
                cluster.timeline.after(fault.seconds, cluster.boot, agent, agent.life)
            case "notice":
                agent.drain(60.0, then_s=fault.seconds, disk_lost=True)
                cluster.disturb(60.0 + fault.seconds)
            case "restarted":
                cluster.leave(agent, "restarted", 3.0)
            case "partition":
                agent.cut_off()
                cluster.timeline.after(fault.seconds, agent.rejoin)
            case "slow":
                agent.machine.slow *= 4.0
                cluster.timeline.after(fault.seconds, self._as_fast_as_before, fault.target)
                cluster.disturb(5 * fault.seconds)
            case "disk":
                agent.machine.disk_free_bytes = GIB // 2
                agent.changed()
                cluster.timeline.after(fault.seconds, self._disk_freed, fault.target)

    def _as_fast_as_before(self, node: str) -> None:
        self._cluster.agents[node].machine.slow /= 4.0

    def _disk_freed(self, node: str) -> None:
        self._cluster.agents[node].machine.disk_free_bytes = 200 * GIB
        self._cluster.agents[node].changed()

    # ---- services

    def _replicas(self, fault: Fault) -> list[Replica]:
        return [one for one in self._cluster.replicas[fault.target] if one.up]

    def _crash(self, fault: Fault) -> None:
        """All replicas at once; back with nothing but the log, or with a picture's checkpoint."""
        for replica in self._replicas(fault):
            checkpoint = replica.crash()
            kept = checkpoint if fault.kind == "checkpointed" else ""
            self._cluster.timeline.after(fault.seconds, self._restart, replica, kept)

    def _restart(self, replica: Replica, checkpoint: str) -> None:
        if not replica.up:
            replica.start(checkpoint)

    def _watcher(self, fault: Fault) -> None:
        for replica in self._replicas(fault):
            replica.cut_off()
            self._cluster.timeline.after(fault.seconds, replica.rejoin)

    def _skew(self, fault: Fault) -> None:
        for replica in self._replicas(fault):
            replica.skew_s = 3.0 if fault.number % 2 else -3.0
            self._cluster.timeline.after(fault.seconds, self._in_step, replica)

    def _in_step(self, replica: Replica) -> None:
        replica.skew_s = 0.0

    def _failover(self, fault: Fault) -> None:
        """The holder of the lease stands still with what it knows, and plans on; another one leads as well."""
        ready = self._replicas(fault)
        if len(ready) < 2:
            return
        stale, fresh = ready[0], ready[1]
        stale.frozen = True
        self._cluster.leads[fault.target].add(fresh)
        fresh.hear()
        self._cluster.timeline.after(fault.seconds, self._stand_by, fault.target, stale, fresh)

    def _stand_by(self, service: str, stale: Replica, fresh: Replica) -> None:
        self._cluster.leads[service] = {fresh}
        stale.frozen = False
        stale.hear()

    # ---- messages

    def _weather(self, fault: Fault) -> None:
        name, value = {
            "doubles": ("doubled", 0.3), "delays": ("slow_s", 20.0), "unacknowledged": ("unacknowledged", 0.1),
            "poison": ("poisoned", 0.05),
        }[fault.kind]  # fmt: skip
        setattr(self._cluster.weather, name, value)
        self._cluster.timeline.after(fault.seconds, setattr, self._cluster.weather, name, 0.0)
        # what was doubled, delayed or buried comes again after the acknowledgement's time or the dedupe window
        self._cluster.disturb(fault.seconds + 180.0)

    # ---- operators

    def _operator(self, fault: Fault) -> None:
        cluster, by = self._cluster, "operator"
        self._revision += 1
        name, revision = f"fault-{fault.number}", 2 * fault.number
        match fault.kind:
            case "pause":
                cluster.publish(PauseLane(lane=fault.target, revision=revision, by=by), name, by)
                back = ResumeLane(lane=fault.target, revision=revision + 1, by=by)
                cluster.timeline.after(fault.seconds, self._insist, back, f"{name}-back", 20)
            case "halt":
                halted = SwitchCluster(state="halted", revision=revision, by=by)
                cluster.publish(halted, name, by)
                back_on = SwitchCluster(state="running", revision=revision + 1, by=by)
                cluster.timeline.after(fault.seconds, self._insist, back_on, f"{name}-back", 20)
            case "boost":
                order = BoostLane(lane=fault.target, factor=3.0, for_s=fault.seconds, revision=revision, by=by)
                cluster.publish(order, name, by)
            case "drain":
                cluster.publish(DrainNode(node=fault.target, by=by, reason="a test", grace_s=30.0), name, by)
                cluster.disturb(60.0 + cluster.setup.churn.away_s)
            case "rollback":
                cluster.publish(RollBack(lane=fault.target, by=by, reason="a test"), name, by)
            case "cancel":
                task = cluster.watcher.any_task(rng_of(cluster.setup.seed, name)) if cluster.watcher else ""
                if task:
                    cluster.publish(CancelTask(task=task, reason="a test"), name, by)

    def _insist(self, order: PauseLane | ResumeLane | SwitchCluster, name: str, times: int) -> None:
        """An operator whose order is lost gives it again."""
        self._cluster.publish(order, f"{name}-{times}", "operator")
        if times > 0:
            self._cluster.timeline.after(10.0, self._insist, order, name, times - 1)
