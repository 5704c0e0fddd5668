"""What the processes of a race do: each runs one of these coroutines with the services' real decisions."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nats
import structlog
from nats.aio.client import Client

from selfplay_orch.core.limits import NODE
from selfplay_orch.core.look import Look
from selfplay_orch.core.picture import WorkPicture
from selfplay_orch.core.placement import placement
from selfplay_orch.core.task import TASK, finished
from selfplay_orch.settings import Settings
from sparring import clock
from sparring.contracts.base import Fact
from sparring.contracts.parts import TaskSpec
from sparring.contracts.selfplay_orch import ReportTaskFinished
from sparring.contracts.training_slots import ClaimSlot, LaneHeldBack, ReleaseSlot, SlotClaimed
from sparring.decider import Context, Decider, Recorded
from sparring.entity_store import Because, EntityStore, Outcome
from sparring.envelope import encode_order
from sparring.errors import LogUnavailable, LostRace
from sparring.hearing import Hearing, heard
from sparring.log import JetStreamLog
from sparring.streams import COMMANDS
from sparring.subjects import filter_of

NODE_NAME = "n1"
FAST = Settings(spawns_per_minute=1_000_000)


async def connected(urls: Sequence[str]) -> Client:
    async def quiet(_: Exception) -> None: ...

    return await nats.connect(list(urls), max_reconnect_attempts=-1, reconnect_time_wait=0.05, error_cb=quiet)


class Racer:
    """One process's store and picture, as a planner has them."""

    def __init__(self, nc: Client, name: str) -> None:
        self.name, self.log = name, JetStreamLog(nc, timeout_s=2.0)
        self.store, self.retries, self.appends = EntityStore(self.log), 0, 0
        self.hearing = Hearing(
            JetStreamLog(nc), WorkPicture, None, checkpoint=None, identity="", logger=structlog.get_logger()
        )

    async def execute(self, entities: Any, decide: Any, id: str) -> Outcome:
        """As often as the log needs to answer; says what came of it."""
        while True:
            because = Because(source=self.name, now=clock.now(), id=id)
            try:
                outcome = await self.store.execute(entities, decide, because)
            except (LogUnavailable, LostRace):
                await asyncio.sleep(0.05)
                continue
            self.retries += outcome.retries
            self.appends += bool(outcome.facts)
            return outcome

    async def assigned(self, task: str) -> bool:
        """An append whose answer was lost is found in the log."""
        return bool((await self.store.state(TASK, task)).state.state)

    async def place(self, task: str) -> bool:
        context = Context(now=clock.now(), settings=FAST, picture=self.hearing.picture)
        spec = TaskSpec(kind="selfplay", lane="hex", seed=1, argv=("x",), timeout_s=600.0)
        action = placement(Look(context), task, spec, None, NODE_NAME)
        outcome = await self.execute(action.entities, action.decide, clock.new_id())
        return bool(outcome.facts) or await self.assigned(task)

    async def finish(self, task: str) -> None:
        order = ReportTaskFinished(
            task=task, attempt=1, node=NODE_NAME, seconds=1.0, files=(), evidence={"games": 1, "positions": 1}
        )
        ref = TASK.ref(task)

        def decide(states: Mapping[Any, Any]) -> Sequence[Fact]:
            return finished(order, states[ref], Context(now=clock.now(), settings=FAST))

        await self.execute([(TASK, task)], decide, clock.new_id())

    async def news(self) -> None:
        self.hearing.changed.clear()
        try:
            await asyncio.wait_for(self.hearing.changed.wait(), 0.5)
        except TimeoutError:
            return


async def admit(urls: Sequence[str], name: str, count: int, churn: bool, result: str) -> None:
    """Places `count` tasks on one node. With `churn` a full node's tasks finish, until all were placed."""
    nc = await connected(urls)
    racer, stopping = Racer(nc, name), asyncio.Event()
    reading = asyncio.create_task(racer.hearing.run(stopping))
    while NODE_NAME not in racer.hearing.picture.all.nodes:  # type: ignore[attr-defined]
        await racer.news()
    running: deque[str] = deque()
    admitted = 0
    for number in range(count):
        task = f"{name}-{number}"
        while not (placed := await racer.place(task)) and churn:
            if running:
                await racer.finish(running.popleft())
            await racer.news()
        if placed:
            running.append(task)
            admitted += 1
    while churn and running:
        await racer.finish(running.popleft())
    Path(result).write_text(json.dumps({"admitted": admitted, "appends": racer.appends, "retries": racer.retries}))
    stopping.set()
    reading.cancel()
    await nc.close()


def _any(state: int, _: Recorded) -> int:
    return state + 1


POOL: Decider[int] = Decider("training-slots", "pool", 0, _any)


async def write(urls: Sequence[str], name: str, writers: int, each: int, result: str) -> None:
    """`writers` at once, each `each` times, on one entity: every fact counts what was there before."""
    nc = await connected(urls)
    racer = Racer(nc, name)
    ref = POOL.ref("main")

    async def one(writer: int) -> None:
        for turn in range(each):
            lane = f"{name}-{writer}-{turn}"

            def decide(states: Mapping[Any, Any], lane: str = lane) -> Sequence[Fact]:
                return [LaneHeldBack(lane=lane, reason=str(states[ref]), until=clock.now())]

            await racer.execute([(POOL, "main")], decide, lane)

    await asyncio.gather(*(one(writer) for writer in range(writers)))
    Path(result).write_text(json.dumps({"appends": racer.appends, "retries": racer.retries}))
    await nc.close()


async def claim(urls: Sequence[str], name: str, lane: str, dies: bool, result: str) -> None:
    """Claims a training slot, holds it, and gives it back, or dies with it."""
    nc = await connected(urls)
    js = nc.jetstream(timeout=2)

    async def send(order: Any, id: str) -> None:
        subject, headers, body = encode_order(order, id, now=clock.now(), source=name)
        while True:
            try:
                await js.publish(subject, body, headers=headers, stream=COMMANDS)
                return
            except (nats.errors.Error, nats.js.errors.Error, TimeoutError, OSError):
                await asyncio.sleep(0.05)

    await send(ClaimSlot(lane=lane, holder=name, lease_s=2.0), f"claim-{name}")
    async for batch in JetStreamLog(nc).follow(0, [filter_of(SlotClaimed)]):
        for raw in batch:
            one = heard(raw)
            if one is None or not isinstance(one.fact, SlotClaimed) or one.fact.holder != name:
                continue
            Path(result).write_text(json.dumps({"token": one.sequence}))
            if dies:
                os.kill(os.getpid(), signal.SIGKILL)
            await send(ReleaseSlot(lane=lane, holder=name, token=one.sequence), f"release-{name}")
            await nc.close()
            return


__all__ = ["NODE", "admit", "claim", "write"]
