"""What the planner would otherwise scan for at every call: seats, waiting tasks, nodes by load, what is due.

Follows the picture fact by fact, so that a call costs what it places, not what exists. Nothing here is knowledge of its
own: all of it is rebuilt from the picture. Memories of earlier calls (what was checked when, which node said no) only
say what need not be looked at again yet.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from selfplay_orch.core.cluster import Node
from selfplay_orch.core.limits import Quota
from selfplay_orch.core.task import Task

BENCHED = timedelta(seconds=1)


@dataclass(frozen=True)
class Wish:
    """What a placement needs; '' as lane asks for any lane."""

    kind: str
    lane: str = ""
    gpu: bool = False
    memory_bytes: int = 0
    disk_bytes: int = 0
    orphaned: bool = False


@dataclass
class NodesByLoad:
    """Nodes in the order of their load, least first; a change costs log n comparisons."""

    ordered: list[tuple[float, str]] = field(default_factory=list)
    loads: dict[str, float] = field(default_factory=dict)

    def put(self, name: str, load: float | None) -> None:
        """None takes the node out."""
        known = self.loads.get(name)
        if known == load:
            return
        if known is not None:
            del self.ordered[bisect_left(self.ordered, (known, name))]
            del self.loads[name]
        if load is not None:
            insort(self.ordered, (load, name))
            self.loads[name] = load


class Index:
    """`taken` are running seats per node, `running` their number per kind, `lane_seats` those of self-play per lane,
    `gone` the seats of each kind that its quota still counts though their task ended or went elsewhere."""

    def __init__(self) -> None:
        self.taken: dict[str, dict[str, str]] = {}
        self.alive: dict[str, str] = {}
        self.running: Counter[str] = Counter()
        self.lane_seats: Counter[str] = Counter()
        self.lane_kinds: Counter[tuple[str, str]] = Counter()
        self.gone: dict[str, dict[str, None]] = {}
        self.assigned: dict[str, Task] = {}
        self.waiting: dict[str, Task] = {}
        self.queues: dict[Wish, list[tuple[datetime, str]]] = {}
        self.usable: dict[str, int] = {}
        self.seats = 0
        self.states: Counter[str] = Counter()
        self._state_of: dict[str, str] = {}
        self.by_load = {True: NodesByLoad(), False: NodesByLoad()}
        self.open = NodesByLoad()
        self.version = 0
        self.touched: dict[str, int] = {}
        self.hopeless: dict[Wish, Any] = {}
        self.shares_at: datetime | None = None
        self._benched: dict[str, datetime | None] = {}
        self._wakes: list[tuple[datetime, str]] = []
        self._benching: dict[str, tuple[datetime, datetime | None]] = {}
        self._looked: tuple[datetime, dict[str, None]] | None = None
        self._fresh: dict[str, None] = {}
        self._due: list[tuple[datetime, str]] = []
        self._due_at: dict[str, datetime] = {}
        self._on_node: dict[str, dict[str, None]] = {}

    # ---- tasks

    def task(self, name: str, before: Task, task: Task, nodes: Mapping[str, Node]) -> None:
        """A task changed; nodes whose seats changed are sorted anew."""
        moved = (before.running, before.node, before.attempt) != (task.running, task.node, task.attempt)
        if before.running and moved:
            self._free(name, before)
        if task.running and moved:
            self._take(name, task)
        if before.state == "requested":
            self._unqueue(name, before)
        if task.state == "requested":
            self._queue(name, task)
        if task.state == "assigned":
            self.assigned[name] = task
        else:
            self.assigned.pop(name, None)
        if task.open:
            self._fresh[name] = None
        else:
            self._fresh.pop(name, None)
            self._due_at.pop(name, None)
        if moved:
            for place in {before.node, task.node} - {""}:
                self.node(place, nodes.get(place))

    def _take(self, name: str, task: Task) -> None:
        if task.spec is None:
            return
        seat, kind, lane = f"{name}-{task.attempt}", task.spec.kind, task.spec.lane
        self.taken.setdefault(task.node, {})[seat] = kind
        self._on_node.setdefault(task.node, {})[name] = None
        self.alive[seat] = kind
        self._count(kind, lane, 1)

    def _free(self, name: str, task: Task) -> None:
        if task.spec is None:
            return
        seat, kind = f"{name}-{task.attempt}", task.spec.kind
        self.taken.get(task.node, {}).pop(seat, None)
        self._on_node.get(task.node, {}).pop(name, None)
        self.alive.pop(seat, None)
        self.gone.setdefault(kind, {})[seat] = None
        self._count(kind, task.spec.lane, -1)

    def _count(self, kind: str, lane: str, by: int) -> None:
        self.running[kind] += by
        self.lane_kinds[kind, lane] += by
        if kind == "selfplay":
            self.lane_seats[lane] += by

    def _queue(self, name: str, task: Task) -> None:
        self.waiting[name] = task
        if task.requested_at is not None:
            insort(self.queues.setdefault(wish_of(task), []), (task.requested_at, name))

    def _unqueue(self, name: str, task: Task) -> None:
        self.waiting.pop(name, None)
        queue = self.queues.get(wish_of(task))
        if queue is None or task.requested_at is None:
            return
        place = bisect_left(queue, (task.requested_at, name))
        if place < len(queue) and queue[place][1] == name:
            del queue[place]
        if not queue:
            del self.queues[wish_of(task)]

    def admitted(self, kind: str, seat: str, freed: tuple[str, ...]) -> None:
        """The quota counts the seat, and no longer those that were freed."""
        gone = self.gone.setdefault(kind, {})
        for one in freed:
            gone.pop(one, None)
        if seat not in self.alive:
            gone[seat] = None

    # ---- nodes

    def node(self, name: str, node: Node | None) -> None:
        """A node, or what runs on it, changed."""
        self.version += 1
        self.touched.pop(name, None)
        self.touched[name] = self.version
        self._benched.pop(name, None)
        self._benching.pop(name, None)
        if node is None:
            return
        self._turn(name, node.state)
        usable = node.usable
        self.seats += (node.seats if usable else 0) - self.usable.pop(name, 0)
        load: float | None = None
        if usable:
            self.usable[name] = node.seats
            load = len(self.taken.get(name, {})) / max(1, node.seats)
        card = bool(node.gpus)
        self.by_load[card].put(name, load)
        self.by_load[not card].put(name, None)
        same = sum(kind == "selfplay" for kind in self.taken.get(name, {}).values())
        self.open.put(name, load if usable and same < node.seats else None)

    def _turn(self, name: str, state: str) -> None:
        before = self._state_of.get(name)
        if before == state:
            return
        if before is not None:
            self.states[before] -= 1
        self.states[state] += 1
        self._state_of[name] = state
        self.recheck_node(name)

    def recheck_node(self, name: str) -> None:
        """What runs there may have lost its node, or the node its earlier life."""
        for task in self._on_node.get(name, {}):
            self._fresh[task] = None

    def recheck_lane(self, lane: str) -> None:
        """What waits for a seat of the lane may be unwanted now."""
        for name, task in self.waiting.items():
            if task.spec is not None and task.spec.lane == lane:
                self._fresh[name] = None

    def bench(self, name: str, now: datetime, until: datetime | None) -> None:
        """The node said no: later calls don't ask it before then, or (None) before something changes there."""
        self._benching[name] = (now, until)

    def wake(self, now: datetime, nodes: Mapping[str, Node]) -> None:
        """Leaves out the nodes that said no in an earlier call, and asks those whose bench time is over."""
        for name in [one for one, (at, _) in self._benching.items() if at < now]:
            until = self._benched[name] = self._benching.pop(name)[1]
            self.open.put(name, None)
            if until is not None:
                heapq.heappush(self._wakes, (until, name))
        while self._wakes and self._wakes[0][0] <= now:
            until, name = heapq.heappop(self._wakes)
            if self._benched.get(name) == until:
                self.node(name, nodes.get(name))

    def touched_since(self, version: int) -> Iterator[str]:
        """Nodes that changed after that version of the index."""
        for name in reversed(self.touched):
            if self.touched[name] <= version:
                return
            yield name

    # ---- deadlines

    def due(self, now: datetime, tasks: Mapping[str, Task], next_at: Callable[[Task], datetime]) -> list[str]:
        """Open tasks to be looked at now: those that changed, whose node or lane did, or whose moment has come."""
        found = self._fresh
        self._fresh = {}
        if self._looked is not None and self._looked[0] == now:
            # the same moment is looked at once more: the same answer
            found = self._looked[1] | found
        while self._due and self._due[0][0] <= now:
            at, name = heapq.heappop(self._due)
            if self._due_at.get(name) == at and name in tasks:
                found[name] = None
        for name in found:
            task = tasks.get(name)
            if task is not None:
                at = self._due_at[name] = max(next_at(task), now + BENCHED)
                heapq.heappush(self._due, (at, name))
        self._looked = (now, found)
        return [name for name in found if name in tasks]


def wish_of(task: Task) -> Wish:
    spec = task.spec
    if spec is None:
        return Wish("", orphaned=task.orphaned)
    return Wish(spec.kind, spec.lane, spec.gpu, spec.memory_bytes, spec.disk_bytes, task.orphaned)


def indexed(tasks: Mapping[str, Task], nodes: Mapping[str, Node], quotas: Mapping[str, Quota]) -> Index:
    """The index of a picture that was loaded."""
    index = Index()
    for name, node in nodes.items():
        index.node(name, node)
    for name, task in tasks.items():
        index.task(name, Task(), task, nodes)
    for kind, quota in quotas.items():
        for seat in quota.seats():
            index.admitted(kind, seat, ())
    return index
