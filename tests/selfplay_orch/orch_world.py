"""A tiny world for tests of `selfplay-orch`: an in-memory log with expectations, the real picture, the real plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from selfplay_orch.app import SERVICE
from selfplay_orch.core.limits import BOOST, NODE, PLAN, QUOTA
from selfplay_orch.core.picture import WorkPicture
from selfplay_orch.core.plan import plan
from selfplay_orch.core.task import TASK
from selfplay_orch.settings import Settings
from sparring.contracts.base import Fact, Order
from sparring.contracts.health import BackpressureChanged, NodeJoined
from sparring.contracts.lanes import IterationRules, LaneSpec
from sparring.contracts.parts import FACTORS, Level, TaskSpec
from sparring.contracts.pipeline import IterationOpened, LaneRegistered
from sparring.contracts.readings import Heartbeat, Resources, RunningTask
from sparring.contracts.selfplay_orch import ReportTaskFinished, ReportTaskStarted, RequestTask
from sparring.decider import Action, Append, Context, Reading, Recorded, Send, Watch
from sparring.subjects import Ref, ref_of
from sparring.testing import at

GIB = 1024**3


class Stale(Exception):
    """An entity moved after it had been read."""


class World:
    """Facts, entity states and one picture, all on a virtual clock in seconds."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        self.now = 0.0
        self.log: list[Recorded] = []
        self.of: dict[Ref, list[Recorded]] = {}
        self.picture = WorkPicture()
        self.states: dict[Ref, tuple[Any, int]] = {}
        self.beats: dict[str, tuple[Heartbeat, float]] = {}
        self.sent: list[Order] = []
        # every other node that joined beats, lists what it runs and has room
        self.silent: set[str] = set()
        self.watch = Watch(1_000.0, 1_000.0)

    def _well(self) -> dict[str, Reading]:
        running: dict[str, list[tuple[str, int]]] = {}
        for name, task in self.picture.all.tasks.items():
            if task.running:
                running.setdefault(task.node, []).append((name, task.attempt))
        return {
            f"tel.{name}.heartbeat": Reading(heartbeat(name, running.get(name, ()), node.boot), 0.0)
            for name, node in self.picture.all.nodes.items() if name not in self.silent
        }  # fmt: skip

    def context(self, picture: WorkPicture | None = None, readings: Mapping[str, Reading] | None = None) -> Context:
        heard = self._well() | {
            f"tel.{node}.heartbeat": Reading(beat, self.now - heard_at) for node, (beat, heard_at) in self.beats.items()
        }
        return Context(now=at(self.now), settings=self.settings, picture=picture or self.picture,
                       read_to=len(self.log), readings=heard if readings is None else readings, watch=self.watch)  # fmt: skip

    def tell(self, *facts: Fact) -> None:
        """Appends facts, and the picture hears them."""
        for fact in facts:
            recorded = Recorded(len(self.log) + 1, at(self.now), fact)
            self.log.append(recorded)
            self.picture.apply(recorded)
            ref = ref_of(fact)
            self.of.setdefault(ref, []).append(recorded)
            known = self.states.get(ref)
            if known is not None:
                decider = DECIDERS[ref.owner, ref.entity]
                self.states[ref] = decider.evolve(known[0], recorded), recorded.sequence

    def read(self, action: Append) -> dict[Ref, tuple[Any, int]]:
        """The states of the action's entities with their last sequences, as an entity store reads them."""
        found = {}
        for decider, id in action.entities:
            ref = decider.ref(id)
            if ref not in self.states:
                state, last = decider.initial, 0
                for one in self.of.get(ref, ()):
                    state, last = decider.evolve(state, one), one.sequence
                self.states[ref] = state, last
            found[ref] = self.states[ref]
        return found

    def append(self, action: Append, seen: Mapping[Ref, tuple[Any, int]]) -> list[Fact]:
        """Decides on what was seen. Raises Stale when an entity that gets a fact moved since: nothing is appended."""
        facts = list(action.decide({ref: state for ref, (state, _) in seen.items()}))
        now = self.read(action)
        for fact in facts:
            if now[ref_of(fact)][1] != seen[ref_of(fact)][1]:
                raise Stale(ref_of(fact))
        self.tell(*facts)
        return facts

    def carry_out(self, actions: Sequence[Action]) -> list[Fact]:
        facts: list[Fact] = []
        for action in actions:
            if isinstance(action, Send):
                self.sent.append(action.order)
            else:
                facts += self.append(action, self.read(action))
        return facts

    def plan(self) -> list[Fact]:
        """Plans until there is nothing more to append now; returns the facts."""
        facts: list[Fact] = []
        for _ in range(100):
            fresh = self.carry_out(plan(self.context()))
            if not fresh:
                return facts
            facts += fresh
        raise AssertionError("the plan never comes to rest")

    def order(self, order: Order) -> list[Fact]:
        command = next(one for one in SERVICE.commands if one.order is type(order))
        action = Append([(command.decider, order.id)], lambda states: command.decide(
            order, next(iter(states.values())), self.context()))  # fmt: skip
        return self.append(action, self.read(action))

    def after(self, seconds: float) -> World:
        self.now += seconds
        return self

    # ---- what usually happens

    def join(self, name: str = "n1", seats: int = 4, boot: str = "b1", **more: Any) -> World:
        known = {"ephemeral": False, "kinds": (), "gpus": (), "cores": 4.0, "compatible": True} | more
        self.tell(NodeJoined(node=name, boot=boot, build="1", tags=(), machine=name, memory_bytes=16 * GIB,
                             seats=seats, **known))  # fmt: skip
        return self

    def lane(self, name: str, **more: Any) -> World:
        self.tell(LaneRegistered(lane=name, spec=lane_spec(name, **more)))
        self.tell(opened(name))
        return self

    def press(self, lane: str, queue: str, level: Level) -> World:
        self.tell(BackpressureChanged(queue=f"{lane}-{queue}", lane=lane, name=queue, level=level, before="none",
                                      factor=FACTORS[level], depth=1.0, soft=1.0, hard=2.0, age_s=0))  # fmt: skip
        return self

    def request(self, task: str, kind: str, lane: str = "hex", **more: Any) -> World:
        order = {key: more.pop(key) for key in ("expires_s", "max_attempts", "by") if key in more}
        spec = TaskSpec(**({"kind": kind, "lane": lane, "seed": 1, "argv": ("run",), "timeout_s": 600.0} | more))
        self.order(RequestTask(**({"task": task, "spec": spec, "by": "pipeline"} | order)))
        return self

    def start(self, task: str) -> World:
        found = self.picture.all.tasks[task]
        self.order(ReportTaskStarted(task=task, attempt=found.attempt, node=found.node))
        return self

    def finish(self, task: str, seconds: float = 10.0, games: int = 100) -> list[Fact]:
        found = self.picture.all.tasks[task]
        return self.order(ReportTaskFinished(task=task, attempt=found.attempt, node=found.node, seconds=seconds,
                                             files=(), evidence={"games": games}))  # fmt: skip

    def beat(self, node: str = "n1", running: Sequence[tuple[str, int]] = (), boot: str = "b1", **more: Any) -> World:
        """From here on the node says what the test says, and when."""
        self.beats[node] = (heartbeat(node, running, boot, **more), self.now)
        return self

    # ---- questions

    def running(self, kind: str = "", lane: str = "", node: str = "") -> list[str]:
        return [
            name
            for name, task in self.picture.all.tasks.items()
            if task.running and task.spec is not None and kind in ("", task.spec.kind)
            and lane in ("", task.spec.lane) and node in ("", task.node)
        ]  # fmt: skip

    def facts(self, *types: type[Fact]) -> list[Any]:
        return [one.fact for one in self.log if isinstance(one.fact, types)]

    def reasons(self) -> list[tuple[str, str]]:
        """Kind and reason of every denial in the log."""
        return [(one.fact.kind, one.fact.reason) for one in self.log if type(one.fact).__name__ == "TaskDenied"]  # type: ignore[attr-defined]


DECIDERS: dict[tuple[str, str], Any] = {(one.owner, one.entity): one for one in (BOOST, NODE, PLAN, QUOTA, TASK)}


def lane_spec(name: str = "hex", *, games_per_task: int = 64, **more: Any) -> LaneSpec:
    return LaneSpec(**({"name": name, "game": "hex", "commands": {"selfplay": ("play", "{job}")},
                        "iteration": IterationRules(games_per_task=games_per_task)} | more))  # fmt: skip


def opened(lane: str, number: int = 1) -> IterationOpened:
    return IterationOpened(iteration=f"{lane}-{number}", lane=lane, number=number, min_positions=10_000,
                           min_new_games=100, games_before=0, positions_before=0, deadline_at=at(7200))  # fmt: skip


def heartbeat(node: str, running: Sequence[tuple[str, int]], boot: str, **more: Any) -> Heartbeat:
    listed = tuple(RunningTask(task=t, attempt=a, kind="selfplay", lane="hex", for_s=1) for t, a in running)
    return Heartbeat(node=node, boot=boot, build="1", contracts="1", running=listed, resources=resources(**more))


def resources(*, memory: float = 0.5, cpu: float = 0.1, disk_bytes: int = 100 * GIB) -> Resources:
    return Resources(cores=4, cpu_share=cpu, foreign_cpu_share=cpu, memory_total_bytes=16 * GIB,
                     memory_available_bytes=int(16 * GIB * (1 - memory)), disk_free_bytes=disk_bytes,
                     disk_total_bytes=200 * GIB)  # fmt: skip
