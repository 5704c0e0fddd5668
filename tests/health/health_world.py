"""Beats, lanes and a planner that keeps its picture, for the tests of health."""

from __future__ import annotations

from health.core.picture import HealthPicture
from health.core.plan import plan
from health.settings import Settings
from sparring.contracts import fingerprint
from sparring.contracts.base import Fact
from sparring.contracts.lanes import LaneSpec
from sparring.contracts.pipeline import LaneRegistered
from sparring.contracts.readings import Heartbeat, Resources, ServiceBeat
from sparring.contracts.selfplay_orch import TaskFailed, TaskFinished
from sparring.decider import Context, Reading
from sparring.testing.world import World

SERVICES = ("health", "lifecycle", "pipeline", "selfplay-orch", "sync", "training-slots")


def heart(node: str = "n1", boot: str = "b1", disk: int = 2**40, load: float = 0.7, **more: object) -> Heartbeat:
    resources = Resources(cores=8, cpu_share=load, foreign_cpu_share=0, memory_total_bytes=2**36,
                          memory_available_bytes=2**36, disk_free_bytes=disk, disk_total_bytes=2**41)  # fmt: skip
    values = {"node": node, "boot": boot, "build": "1", "contracts": fingerprint(), "resources": resources}
    return Heartbeat.model_validate(values | more)


def service(name: str, handled: int = 0, failed: int = 0, **more: object) -> ServiceBeat:
    values = {"service": name, "replica": "1", "build": "1", "contracts": fingerprint(), "leader": True, "position": 0,
              "log_end": 0, "handled": handled, "failed": failed, "loop_lag_s": 0, "up_s": 10_000}  # fmt: skip
    return ServiceBeat.model_validate(values | more)


class Watched(World):
    """One planner for the whole story, as one process is; `hears` says what beats now."""

    def __init__(self, *facts: Fact, **settings: object) -> None:
        self.picture, self._taken = HealthPicture(), 0
        super().__init__(HealthPicture, plan, Settings.model_validate(settings), *facts)
        self.hears()

    def hears(
        self, *beats: Heartbeat | tuple[Heartbeat, float], silent: tuple[str, ...] = (), **counts: tuple[int, int]
    ) -> None:
        """Nodes' beats, 1 s old or as told; every service beats but the silent ones, with (handled, failed) as told."""
        told = [one if isinstance(one, tuple) else (one, 1.0) for one in beats]
        nodes = {f"tel.{beat.node}.heartbeat": Reading(beat, age_s) for beat, age_s in told}
        services = {
            f"tel.svc-{name}-1.heartbeat": Reading(service(name, *counts.get(name, (0, 0))), 1.0)
            for name in SERVICES
            if name not in silent
        }
        self.readings = {**nodes, **services}

    def context(self, up_to: int | None = None) -> Context:
        for one in self.facts[self._taken :]:
            self.picture.apply(one)
        self._taken = len(self.facts)
        fresh = super().context(up_to)
        return Context(now=fresh.now, settings=fresh.settings, picture=self.picture, read_to=fresh.read_to,
                       readings=self.readings, watch=self.watch)  # fmt: skip

    def passes(self, seconds: float, step: float = 1.0) -> None:
        """Time passes, planned at every step."""
        end = self.now + seconds
        while self.now < end:
            self.tick(min(step, end - self.now))


def lane(name: str = "hex", **backpressure: int) -> LaneRegistered:
    spec = {
        "name": name,
        "game": "hex",
        "commands": {"selfplay": ("x", "{job}", "{out}")},
        "backpressure": backpressure,
    }
    return LaneRegistered(lane=name, spec=LaneSpec.model_validate(spec))


def failed(task: str, node: str = "n1", lane: str = "hex", kind: str = "selfplay") -> TaskFailed:
    return TaskFailed(task=task, attempt=1, node=node, kind=kind, lane=lane, reason="exit code 1", retry_at=None)


def finished(task: str, node: str = "n1", lane: str = "hex", kind: str = "selfplay") -> TaskFinished:
    return TaskFinished(task=task, attempt=1, node=node, kind=kind, lane=lane, seconds=1, files=(), evidence={})
