"""What this node says of itself: beats, progress, and whether its own loop stands still."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

from node_agent.roster import Running
from node_agent.trouble import TROUBLE
from sparring import __version__, clock
from sparring.contracts import fingerprint
from sparring.contracts.readings import Heartbeat, Resources, RunningTask, TaskProgress
from sparring.subjects import token
from sparring.supervisor import forsaken

if TYPE_CHECKING:
    from node_agent.agent import Agent

READ_S = 2.0
READ_AGAIN_S = 0.5
LAG_S = 0.5
LOUD_LAG_S = 1.0


class Beats:
    """Readings are said, never kept: what can't be said now is not worth saying later."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._began = time.monotonic()
        self._resources: Resources | None = None
        self._reading: asyncio.Task[Resources] | None = None
        self.loop_lag_s = 0.0

    async def run(self) -> None:
        agent = self._agent
        while True:
            heartbeat = await self.heartbeat()
            if agent.nc.is_connected:
                await self._publish("heartbeat", heartbeat.model_dump_json())
            if forsaken():
                agent.log.error("the supervisor is gone; this agent saves what runs and ends")
                agent.stopping.set()
            await asyncio.sleep(agent.settings.beat_s)

    async def watch_loop(self) -> None:
        """How late the loop wakes up: whatever blocks it delays beats, stops and halts."""
        while True:
            asked = time.monotonic()
            await asyncio.sleep(LAG_S)
            lag = time.monotonic() - asked - LAG_S
            self.loop_lag_s = max(lag, 0.9 * self.loop_lag_s)
            if lag > LOUD_LAG_S:
                self._agent.log.warning("the event loop stood still", for_s=round(lag, 2))

    async def _read(self) -> Resources:
        """The machine now; a driver that hangs or fails costs a fresh reading, never the beat."""
        await self._read_once()
        while self._resources is None:
            await asyncio.sleep(READ_AGAIN_S)
            await self._read_once()
        return self._resources

    async def _read_once(self) -> None:
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(asyncio.to_thread(self._agent.machine.read))
        try:
            async with asyncio.timeout(READ_S if self._resources else None):
                self._resources = await asyncio.shield(self._reading)
        except TimeoutError:
            self._agent.log.warning("the machine could not be read in time; the last reading stands")
        # a machine that can't be measured still computes: whatever its drivers raise, it is not gone
        except Exception:
            self._agent.log.error("the machine could not be read; the last reading stands", exc_info=True)

    async def heartbeat(self) -> Heartbeat:
        agent, settings = self._agent, self._agent.settings
        resources = await self._read()
        # after the reading, which takes a while: a task that began meanwhile has run for no less than nothing
        now = time.monotonic()
        games = agent.custody.batches()
        left = None if agent.gone_at is None else round(max(0.0, agent.gone_at - now), 1)
        return Heartbeat(
            node=settings.node, boot=agent.boot, build=__version__, contracts=fingerprint(),
            ephemeral=settings.ephemeral, tags=settings.tags, kinds=settings.kinds, machine=settings.machine,
            seats=settings.seats, running=tuple(_listed(one, now) for one in agent.running.values()),
            spooled=agent.spool.depth + len(games),
            spooled_bytes=sum(one.stat().st_size for one in games if one.exists()),
            draining=agent.draining, up_s=round(now - self._began, 1), loop_lag_s=round(max(0.0, self.loop_lag_s), 4),
            resources=resources, at=clock.now(), notice=agent.notice, notice_s=left,
        )  # fmt: skip

    def progressed(self, running: Running, done: float, of: float) -> None:
        """Keeps the program's progress as a reading, at most one a second."""
        running.done, running.of = done, of
        now, agent = time.monotonic(), self._agent
        if now - running.told_at < 1.0 or not agent.nc.is_connected:
            return
        running.told_at = now
        spec = running.order.spec
        reading = TaskProgress(node=agent.settings.node, task=running.order.task, lane=spec.lane, kind=spec.kind,
                               done=done, of=of)  # fmt: skip
        agent.go(self._publish("progress", reading.model_dump_json()))

    async def _publish(self, reading: str, body: str) -> None:
        with contextlib.suppress(*TROUBLE):
            await self._agent.nc.publish(f"tel.{token(self._agent.settings.node)}.{reading}", body.encode())


def _listed(one: Running, now: float) -> RunningTask:
    spec = one.order.spec
    return RunningTask(
        task=one.order.task, attempt=one.order.attempt, kind=spec.kind, lane=spec.lane,
        for_s=round(max(0.0, now - one.began), 1), done=one.done / one.of if one.of else None,
    )  # fmt: skip
