"""Agents that speak the protocol and run nothing: thousands of nodes in one process, over one connection."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import random
import time
import uuid
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import nats.errors
from nats.aio.client import Client
from nats.js.errors import Error as JetStreamError

from sparring import __version__, clock
from sparring.contracts import fingerprint
from sparring.contracts.base import Order
from sparring.contracts.node_agent import HaltNode, StartTask, StopTask
from sparring.contracts.readings import Heartbeat, Resources
from sparring.contracts.selfplay_orch import (
    ReportTaskFailed,
    ReportTaskFinished,
    ReportTaskStarted,
    TaskFinished,
)
from sparring.ending import ended
from sparring.envelope import decode, derived_id, encode_order
from sparring.errors import LogUnavailable
from sparring.log import JetStreamLog
from sparring.streams import COMMANDS
from sparring.subjects import token

TROUBLE = (nats.errors.Error, JetStreamError, LogUnavailable, TimeoutError, OSError)
TICK_S = 0.01
PUBLISH_AT_ONCE = 64
GIB = 1024**3


@dataclass
class Task:
    """What a light agent pretends to run; `ends_at` is monotonic. `over`: its outcome was sent and is not seen yet."""

    name: str
    attempt: int
    kind: str
    lane: str
    began: float
    ends_at: float
    over: bool = False


@dataclass
class Agent:
    """One node: its life and what it lists in its beats."""

    name: str
    boot: str
    alive: bool = True
    fresh: bool = True
    tasks: dict[str, Task] = field(default_factory=dict)
    parts: tuple[str, str, str] = ("", "", "")


@dataclass
class Seen:
    """What the agents saw; times are monotonic seconds. `doubled` are tasks that began on one node while another ran them,
    `repeated` orders to start that came twice to the same node."""

    started: int = 0
    finished: list[str] = field(default_factory=list)
    doubled: int = 0
    repeated: int = 0
    freed: deque[float] = field(default_factory=deque)
    waits_s: list[float] = field(default_factory=list)
    placed_again: dict[str, float] = field(default_factory=dict)
    beats: int = 0


class LightAgents:
    """`count` agents with one seat each, whose tasks take `task_s` ± a fifth; every beat is a real heartbeat, and lists what
    finished until that is seen in the log, as a real agent's does.

    An agent's first task ends anywhere within `task_s`, as if it had begun earlier: after the filling tasks end evenly.

    `seen.waits_s` holds for each seat that a finished task freed the time until the next order to start arrived; seats
    are matched first come, first served, because a limit of the cluster may give the place to another node.
    """

    def __init__(
        self, nc: Client, count: int, *, task_s: float, beat_s: float = 5.0, seed: int = 1, prefix: str = "light"
    ) -> None:
        self._nc, self._task_s, self._beat_s = nc, task_s, beat_s
        self._random = random.Random(seed)
        self._began = time.monotonic()
        self.agents = {name: self._agent(name) for name in (f"{prefix}-{number:05d}" for number in range(count))}
        self.seen = Seen()
        self.missing: set[str] = set()
        self._ends: list[tuple[float, str, str]] = []
        # by task and attempt: who began it; by task: the attempt that finished
        self._where: dict[str, str] = {}
        self._done: dict[str, int] = {}
        self._outbox: asyncio.Queue[Order] = asyncio.Queue()

    def _agent(self, name: str) -> Agent:
        agent = Agent(name, uuid.uuid4().hex[:12])
        beat = Heartbeat(
            node=name, boot=agent.boot, build=__version__, contracts=fingerprint(), machine=name, seats=1,
            resources=Resources(
                cores=2, cpu_share=0.7, foreign_cpu_share=0.1, memory_total_bytes=16 * GIB,
                memory_available_bytes=12 * GIB, disk_free_bytes=500 * GIB, disk_total_bytes=1000 * GIB,
            ),
        )  # fmt: skip
        before, rest = beat.model_dump_json().split('"running":[]')
        middle, after = rest.split('"up_s":0.0')
        agent.parts = (before, middle, after)
        return agent

    async def run(self, stopping: asyncio.Event) -> None:
        """Beats, obeys and reports until told to stop."""
        parts = [
            self._beat(),
            self._obey(),
            self._see(),
            self._end(),
            *(self._publish() for _ in range(PUBLISH_AT_ONCE)),
        ]
        tasks = [asyncio.create_task(one) for one in parts]
        try:
            await stopping.wait()
        finally:
            await ended(*tasks)

    def kill(self, share: float) -> set[str]:
        """That share of the agents falls silent at once; returns the tasks that they ran."""
        living = [one for one in self.agents.values() if one.alive]
        for one in self._random.sample(living, round(share * len(living))):
            one.alive = False
            self.missing |= {task.name for task in one.tasks.values() if not task.over}
            one.tasks.clear()
        return set(self.missing)

    @property
    def running(self) -> int:
        return sum(not task.over for one in self.agents.values() for task in one.tasks.values())

    # ---- beats

    async def _beat(self) -> None:
        """Every agent once in `beat_s`, evenly spread."""
        agents = list(self.agents.values())
        place, begun = 0, time.monotonic()
        while True:
            due = int((time.monotonic() - begun) / self._beat_s * len(agents))
            # after a stall only the newest round counts: an agent never sends two beats at once
            place = max(place, due - len(agents))
            if self._nc.is_connected:
                with contextlib.suppress(*TROUBLE):
                    while place < due:
                        agent = agents[place % len(agents)]
                        place += 1
                        if agent.alive:
                            await self._nc.publish(f"tel.{token(agent.name)}.heartbeat", self._body(agent))
                            self.seen.beats += 1
            else:
                place = due
            await asyncio.sleep(TICK_S)

    def _body(self, agent: Agent) -> bytes:
        now = time.monotonic()
        running = ",".join(
            f'{{"task":"{one.name}","attempt":{one.attempt},"kind":"{one.kind}","lane":"{one.lane}",'
            f'"for_s":{now - one.began:.1f},"done":null}}'
            for one in agent.tasks.values()
        )
        before, middle, after = agent.parts
        return f'{before}"running":[{running}]{middle}"up_s":{now - self._began:.1f}{after}'.encode()

    # ---- orders

    async def _obey(self) -> None:
        log = JetStreamLog(self._nc, stream=COMMANDS)
        async for batch in log.follow(await log.end(), ["cmd.node-agent.>"]):
            for raw in batch:
                order = decode(raw.subject, raw.headers, raw.body)
                match order:
                    case StartTask():
                        self._start(order)
                    case StopTask(node=node, task=task, attempt=attempt):
                        self._drop(node, f"{task}-{attempt}", "stopped")
                    case HaltNode(node=node):
                        for key in list(self.agents[node].tasks) if node in self.agents else ():
                            self._drop(node, key, "halted")

    def _start(self, order: StartTask) -> None:
        agent, key = self.agents.get(order.node), f"{order.task}-{order.attempt}"
        if agent is None or not agent.alive or order.boot != agent.boot:
            return
        if key in self._where:
            self.seen.repeated += 1
            return
        now = time.monotonic()
        self.seen.started += 1
        self.seen.doubled += self._runs(order)
        self._where[key] = agent.name
        if order.task in self.missing:
            self.missing.discard(order.task)
            self.seen.placed_again[order.task] = now
        elif self.seen.freed:
            self.seen.waits_s.append(now - self.seen.freed.popleft())
        share = self._random.random() if agent.fresh else self._random.uniform(0.8, 1.2)
        agent.fresh, ends_at = False, now + self._task_s * share
        agent.tasks[key] = Task(order.task, order.attempt, order.spec.kind, order.spec.lane, now, ends_at)
        heapq.heappush(self._ends, (ends_at, agent.name, key))
        self._outbox.put_nowait(ReportTaskStarted(task=order.task, attempt=order.attempt, node=agent.name))

    def _runs(self, order: StartTask) -> bool:
        """Whether a node still runs an earlier attempt."""
        keys = (f"{order.task}-{attempt}" for attempt in range(1, order.attempt))
        found = ((self.agents[self._where[key]], key) for key in keys if key in self._where)
        return any(key in agent.tasks and not agent.tasks[key].over for agent, key in found)

    def _drop(self, node: str, key: str, reason: str) -> None:
        agent = self.agents.get(node)
        task = agent.tasks.pop(key, None) if agent is not None else None
        if task is not None and not task.over:
            self._outbox.put_nowait(ReportTaskFailed(task=task.name, attempt=task.attempt, node=node, reason=reason))

    async def _see(self) -> None:
        log = JetStreamLog(self._nc)
        async for batch in log.follow(await log.end(), ["evt.selfplay-orch.task.*.TaskFinished"]):
            for raw in batch:
                fact = decode(raw.subject, raw.headers, raw.body)
                if isinstance(fact, TaskFinished):
                    self._answered(fact)

    def _answered(self, fact: TaskFinished) -> None:
        """It answers whoever reports this attempt or an earlier one."""
        self._done[fact.task] = fact.attempt
        for attempt in range(1, fact.attempt + 1):
            key = f"{fact.task}-{attempt}"
            agent = self.agents.get(self._where.get(key, ""))
            if agent is not None and key in agent.tasks and agent.tasks[key].over:
                del agent.tasks[key]

    # ---- reports

    async def _end(self) -> None:
        while True:
            now = time.monotonic()
            while self._ends and self._ends[0][0] <= now:
                _, node, key = heapq.heappop(self._ends)
                task = self.agents[node].tasks.get(key)
                if task is not None and not task.over:
                    task.over = True
                    if self._done.get(task.name, 0) >= task.attempt:
                        del self.agents[node].tasks[key]
                    self.seen.freed.append(now)
                    self.seen.finished.append(task.name)
                    self._outbox.put_nowait(_finished(node, task, now))
            await asyncio.sleep(TICK_S)

    async def _publish(self) -> None:
        """At least once: each order is sent until the server has it on disk."""
        while True:
            order = await self._outbox.get()
            id = derived_id(order.model_dump_json(), type(order).__name__, order.id)
            subject, headers, body = encode_order(order, id, now=clock.now(), source="light-agents")
            while True:
                try:
                    await self._nc.jetstream(timeout=5).publish(subject, body, headers=headers, stream=COMMANDS)
                    break
                except TROUBLE:
                    await asyncio.sleep(0.5)


def _finished(node: str, task: Task, now: float) -> ReportTaskFinished:
    return ReportTaskFinished(
        task=task.name, attempt=task.attempt, node=node, seconds=round(now - task.began, 3), files=(),
        evidence={"games": 10, "positions": 100},
    )  # fmt: skip


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which that share of them lies; nan when there are none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")
