"""The agent of one node: its life from joining to leaving, and the parts that take orders, run tasks, beat and keep."""

from __future__ import annotations

import asyncio
import shutil
import signal
import time
import uuid
from collections.abc import Coroutine
from typing import Any

import nats

from node_agent.beats import Beats
from node_agent.cache import Cache
from node_agent.custody import Custody
from node_agent.limits import Cgroups, Places, available_cores
from node_agent.machine import Machine
from node_agent.orders import Orders, durable_of
from node_agent.roster import Roster, Running
from node_agent.settings import AgentSettings
from node_agent.slot import guard
from node_agent.spool import Spool
from node_agent.trouble import TROUBLE
from node_agent.work import CGROUP_STAYS, ENDINGS
from sparring import logs, telemetry
from sparring.artifacts import open_store
from sparring.connection import close
from sparring.contracts.selfplay_orch import ReportTaskFailed
from sparring.ending import ended
from sparring.probes import serve
from sparring.streams import EVENTS
from sparring.subjects import token
from sparring.topology import declare_durable


class Agent:
    """One process per node. Owns no facts: everything it has to say is an order to an owner, or a reading."""

    def __init__(self, settings: AgentSettings) -> None:
        self.settings = settings
        self.folder = settings.data.resolve()
        self.boot = uuid.uuid4().hex[:12]
        self.log = logs.set_up("node-agent", settings.node)
        self.running = Roster(self.folder / "tasks")
        self.orders, self.beats = Orders(self), Beats(self)
        self.cgroups = Cgroups(settings.cgroup, token(settings.node))
        self.stopping = asyncio.Event()
        self.draining = self.goes = False
        self.notice = ""
        self.gone_at: float | None = None
        self.exit_code = 0
        self._tasks: set[asyncio.Task[Any]] = set()
        self._leaving = False

    async def run(self) -> int:
        for signum in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(signum, self.stopping.set)
        self.folder.mkdir(parents=True, exist_ok=True)
        if not await self._connect():
            return self.exit_code
        probes = None
        if self.settings.http:
            probes = await serve(self.settings.http, self._live, self._ready, self.settings.http_host)
        await self._recover()
        parts = (self.orders.obey(), self.beats.run(), self.beats.watch_loop(), self._notice())
        loops = [asyncio.create_task(one) for one in parts]
        for one in loops:
            one.add_done_callback(self._on_part_done)
        self.log.info("joined", node=self.settings.node, boot=self.boot, cards=self.places.cards,
                      memory_limits_by="cgroup" if self.cgroups.usable else "rlimit")  # fmt: skip
        await self.stopping.wait()
        await self._drain()
        await ended(*loops)
        if probes is not None:
            probes.close()
        await close(self.nc)
        await asyncio.to_thread(telemetry.flush)
        return self.exit_code

    async def _connect(self) -> bool:
        """Waits for the server, and for the topology that services declare, as long as it takes."""
        settings = self.settings
        while not self.stopping.is_set():
            try:
                self.nc = await nats.connect(
                    [one.strip() for one in settings.nats.split(",")],
                    name=f"node-agent/{settings.node}",
                    user_credentials=settings.creds or None,
                    max_reconnect_attempts=-1,
                    reconnect_time_wait=1,
                    error_cb=self._on_error,
                    closed_cb=self._on_closed,
                    inbox_prefix=f"_INBOX.agent-{token(settings.node)}",
                )
                js = self.nc.jetstream(timeout=5)
                created = (await js.stream_info(EVENTS)).created
                self.store = await open_store(settings.artifacts, js)
                await declare_durable(js, durable_of(settings.node))
            except TROUBLE as error:
                self.log.warning("no server or no streams yet", url=settings.nats, error=repr(error))
                if getattr(self, "nc", None) is not None and not self.nc.is_closed:
                    self._leaving = True
                    await close(self.nc)
                    self._leaving = False
                await asyncio.sleep(0.5)
                continue
            telemetry.set_up("node-agent", settings.node)
            telemetry.salt_with(str(created))
            self.spool = Spool(self.folder / "spool", self.nc, f"node-agent/{settings.node}", self.log)
            self.custody = Custody(self.folder / "games", settings.node, self.store, self.spool, self.log)
            self.cache = Cache(self.folder / "cache", self.store, settings.cache_bytes)
            self.machine = Machine(self.folder)
            self.places = Places(available_cores(), self.machine.cards, settings.cores_per_task)
            return True
        return False

    async def _recover(self) -> None:
        """What an earlier life left: leftovers are ended, tasks without an outcome are reported, games stay in custody."""
        self.spool.recover()
        self.custody.recover()
        for file, left in await asyncio.to_thread(self.running.leftovers):
            reason = "the agent restarted" + (" and ended what still ran" if left.ran else "")
            report = ReportTaskFailed(task=left.task, attempt=left.attempt, node=self.settings.node, reason=reason)
            self.spool.put(report, key=f"restarted-{left.task}-{left.attempt}", attempt=left.attempt, names=ENDINGS)
            file.unlink(missing_ok=True)
        for folder in await asyncio.to_thread(self.cgroups.drop_leftovers):
            self.log.error(CGROUP_STAYS, cgroup=str(folder))
        await asyncio.to_thread(shutil.rmtree, self.folder / "work", ignore_errors=True)

    # ---- leaving

    def leave(self, reason: str, grace_s: float) -> None:
        """This node goes: what it holds must not go with it."""
        self.log.warning("this node leaves", reason=reason, grace_s=grace_s)
        self.settings = self.settings.model_copy(update={"grace_s": grace_s})
        self.goes = True
        self.stopping.set()

    async def _notice(self) -> None:
        """A provider's notice that this machine will go."""
        file = self.settings.notice_file
        while file is not None:
            if file.exists():
                self.notice = f"preemption was noticed in {file}"
                self.gone_at = time.monotonic() + self.settings.grace_s
                self.leave(self.notice, self.settings.grace_s)
                return
            await asyncio.sleep(0.5)

    async def _drain(self) -> None:
        """Partial results count: programs get the grace time; games leave meanwhile when the machine goes."""
        self.draining, end = True, time.monotonic() + self.settings.grace_s
        goes = self.goes or self.settings.ephemeral
        evacuating = asyncio.create_task(self._evacuate()) if goes else None
        for key in list(self.running):
            self.orders.stop(key, "the node drains", self.settings.grace_s)

        def held() -> bool:
            return bool(self.running) or (goes and bool(self.custody.batches()))

        # even without grace the last words get a moment
        seen = await self.spool.flushed(max(5.0, end - time.monotonic()), still=held)
        if evacuating is not None:
            await ended(evacuating)
        if not seen:
            self.log.warning("not everything was seen; it stays on disk", outcomes=self.spool.depth,
                             batches=len(self.custody.batches()))  # fmt: skip

    async def _evacuate(self) -> None:
        while True:
            await self.custody.evacuate(time.time(), self.settings.uplink_bytes_per_s)
            await asyncio.sleep(0.2)

    # ---- what tasks need of their agent

    def go(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        """Runs it beside everything else."""
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._on_errand_done)

    async def guard(self, running: Running) -> None:
        """Ends exclusive work whose right is gone, or can't be watched."""
        try:
            await guard(self.nc, self.settings, running,
                        lambda reason, grace_s: self.orders.stop(running.key, reason, grace_s))  # fmt: skip
        except Exception as error:
            self.log.error("a task's right can't be watched", task=running.order.task, exc_info=True)
            self.orders.stop(running.key, f"its right can't be watched: {type(error).__name__}: {error}", 0.0)

    def _on_errand_done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self.log.error("something that this agent did failed", exc_info=task.exception())

    def _on_part_done(self, part: asyncio.Task[Any]) -> None:
        """An agent that is deaf or does not beat computes for nobody: it ends, and its next life says what it left."""
        if not part.cancelled() and part.exception() is not None:
            self.log.error("a part of the agent ended", exc_info=part.exception())
            self.exit_code = 1
            self.stopping.set()

    # ---- probes and connection

    def _live(self) -> tuple[bool, dict[str, Any]]:
        found = {"node": self.settings.node, "boot": self.boot, "loop_lag_s": round(self.beats.loop_lag_s, 4)}
        return not self.stopping.is_set(), found

    def _ready(self) -> tuple[bool, dict[str, Any]]:
        return self.nc.is_connected and not self.draining, {"node": self.settings.node, "running": list(self.running)}

    async def _on_error(self, error: Exception) -> None:
        text = str(error)
        if "permissions violation" in text.lower():
            self.log.error("this user may not do that; the agent ends", error=text)
            self.exit_code = 1
            self.stopping.set()
        elif text:
            self.log.warning("connection", error=text)

    async def _on_closed(self) -> None:
        if not self.stopping.is_set() and not self._leaving:
            self.log.error("the connection closed for good")
            self.exit_code = 1
            self.stopping.set()
