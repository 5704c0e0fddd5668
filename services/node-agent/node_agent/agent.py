"""The agent of one node: takes orders, runs tasks, beats, keeps what it produced until custody is confirmed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import shutil
import signal
import time
import uuid
from pathlib import Path
from typing import Any

import nats
import nats.errors
import psutil
from nats.aio.msg import Msg
from nats.js.errors import Error as JetStreamError

from node_agent.child import Child, kill_leftovers
from node_agent.machine import Machine
from node_agent.settings import AgentSettings
from node_agent.spool import Spool
from node_agent.work import ENDINGS, Running, run_task
from sparring import __version__, clock, logs, telemetry
from sparring.artifacts import ArtifactCache, open_store
from sparring.contracts import fingerprint
from sparring.contracts.node_agent import DrainAgent, HaltNode, ReleaseCustody, StartTask, StopTask, UploadBatch
from sparring.contracts.readings import Heartbeat, RunningTask, TaskProgress
from sparring.contracts.selfplay_orch import ReportTaskFailed
from sparring.contracts.sync import ReportStored, ReportTransferFailed
from sparring.contracts.training_slots import RenewSlot
from sparring.envelope import decode, derived_id, encode_order
from sparring.errors import LogUnavailable, Permanent, Transient
from sparring.log.jetstream import JetStreamLog
from sparring.probes import serve
from sparring.streams import COMMANDS, EVENTS, Durable
from sparring.subjects import token
from sparring.supervisor import forsaken
from sparring.topology import declare_durable

TROUBLE = (nats.errors.Error, JetStreamError, LogUnavailable, TimeoutError, OSError)
STORED = ("BatchStored", "BatchAdmitted", "BatchQuarantined", "BatchRetired")
HALT_S = 5.0


class Agent:
    """One process per node. Owns no facts: everything it has to say is an order to an owner, or a reading."""

    def __init__(self, settings: AgentSettings) -> None:
        self.settings = settings
        self.folder = settings.data.resolve()
        self.boot = uuid.uuid4().hex[:12]
        self.log = logs.set_up("node-agent", settings.node)
        self.running: dict[str, Running] = {}
        self.stopping = asyncio.Event()
        self.draining = False
        self.exit_code = 0
        self._known: set[str] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._began = time.monotonic()

    # ---- life

    async def run(self) -> int:
        for signum in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(signum, self.stopping.set)
        self.folder.mkdir(parents=True, exist_ok=True)
        if not await self._connect():
            return self.exit_code
        probes = None
        if self.settings.http:
            probes = await serve(self.settings.http, self._live, self._ready, self.settings.http_host)
        self._recover()
        loops = [asyncio.create_task(one) for one in (self._obey(), self._beat(), self._notice())]
        self.log.info("joined", node=self.settings.node, boot=self.boot)
        await self.stopping.wait()
        await self._drain()
        for loop in loops:
            loop.cancel()
        await asyncio.gather(*loops, return_exceptions=True)
        if probes is not None:
            probes.close()
        await self.nc.close()
        await asyncio.to_thread(telemetry.flush)
        return self.exit_code

    async def _connect(self) -> bool:
        """Waits for the server, and for the topology that services declare, as long as it takes."""
        while not self.stopping.is_set():
            try:
                self.nc = await nats.connect(
                    [one.strip() for one in self.settings.nats.split(",")],
                    name=f"node-agent/{self.settings.node}",
                    user_credentials=self.settings.creds or None,
                    max_reconnect_attempts=-1,
                    reconnect_time_wait=1,
                    error_cb=self._on_error,
                    closed_cb=self._on_closed,
                    inbox_prefix=f"_INBOX.agent-{token(self.settings.node)}",
                )
                js = self.nc.jetstream(timeout=5)
                created = (await js.stream_info(EVENTS)).created
                self.store = await open_store(self.settings.artifacts, js)
                subject = f"cmd.node-agent.node.{token(self.settings.node)}.>"
                self._durable = Durable(f"agent-{token(self.settings.node)}", COMMANDS, (subject,), start="now",
                                        ack_wait_s=30.0, max_deliver=-1)  # fmt: skip
                await declare_durable(js, self._durable)
            except TROUBLE as error:
                self.log.warning("no server or no streams yet", url=self.settings.nats, error=repr(error))
                if getattr(self, "nc", None) is not None and not self.nc.is_closed:
                    self._leaving = True
                    await self.nc.close()
                    self._leaving = False
                await asyncio.sleep(0.5)
                continue
            telemetry.set_up("node-agent", self.settings.node)
            telemetry.salt_with(str(created))
            self.spool = Spool(self.folder / "spool", self.nc, f"node-agent/{self.settings.node}", self.log)
            self.cache = ArtifactCache(self.folder / "cache", self.settings.cache_bytes)
            self.machine = Machine(self.folder)
            return True
        return False

    _leaving = False

    def _recover(self) -> None:
        """What an earlier life left: leftovers are killed, tasks without an outcome are reported, games stay in custody."""
        self.spool.recover()
        for file in (self.folder / "tasks").glob("*.json"):
            with contextlib.suppress(ValueError, KeyError, psutil.Error):
                left = json.loads(file.read_text())
                if left.get("pid") and left.get("started"):
                    kill_leftovers(left["pid"], left["started"])
            with contextlib.suppress(ValueError, KeyError):
                left = json.loads(file.read_text())
                report = ReportTaskFailed(task=left["task"], attempt=left["attempt"], node=self.settings.node,
                                          reason="the agent restarted")  # fmt: skip
                self.spool.put(report, key=f"restarted-{left['task']}-{left['attempt']}", attempt=left["attempt"],
                               names=ENDINGS)  # fmt: skip
            file.unlink(missing_ok=True)
        shutil.rmtree(self.folder / "work", ignore_errors=True)

    async def _drain(self) -> None:
        """Partial results count: programs get the grace time, then the spool is emptied."""
        self.draining = True
        for one in list(self.running.values()):
            if one.child is not None:
                one.child.terminate("the node drains")
            else:
                one.cancelled = "the node drains"
        end = time.monotonic() + self.settings.grace_s
        while any(one.child is not None and one.child.pid for one in self.running.values()) and time.monotonic() < end:
            await asyncio.sleep(0.05)
        for one in self.running.values():
            if one.child is not None:
                one.child.kill("the grace time is over")

        def held() -> bool:
            return bool(self.running) or (self.settings.ephemeral and bool(self.games()))

        if not await self.spool.flushed(max(5.0, end - time.monotonic()), still=held):
            self.log.warning(
                "not everything was seen; it stays on disk", outcomes=self.spool.depth, batches=len(self.games())
            )

    # ---- orders

    async def _obey(self) -> None:
        js = self.nc.jetstream(timeout=5)
        pull = await js.pull_subscribe_bind(self._durable.name, COMMANDS)
        while True:
            try:
                messages = await pull.fetch(batch=16, timeout=1)
            except (nats.errors.TimeoutError, TimeoutError):
                continue
            except TROUBLE as error:
                self.log.warning("orders can't be read", error=repr(error))
                await asyncio.sleep(0.5)
                continue
            for message in messages:
                await self._on_order(message)

    async def _on_order(self, message: Msg) -> None:
        try:
            order = decode(message.subject, dict(message.headers or {}), message.data)
        except Permanent as error:
            self.log.error("an order was not understood", subject=message.subject, error=str(error))
            await message.term()
            return
        match order:
            case StartTask():
                self._start(order)
            case StopTask(task=task, attempt=attempt, reason=reason):
                self._stop(f"{task}-{attempt}", reason)
            case UploadBatch():
                self._go(self._upload(order))
            case ReleaseCustody(batch=batch):
                self._game_file(batch).unlink(missing_ok=True)
            case HaltNode(reason=reason):
                for key in list(self.running):
                    self._stop(key, f"halted: {reason}", at_once=True)
            case DrainAgent(grace_s=grace_s):
                self.settings = self.settings.model_copy(update={"grace_s": grace_s})
                self.stopping.set()
        with contextlib.suppress(nats.errors.Error):
            await message.ack()

    def _start(self, order: StartTask) -> None:
        """Starts a task once, however often it is ordered; orders for an earlier life of this node are void."""
        running = Running(order)
        if order.boot != self.boot or running.key in self._known or self.draining:
            return
        self._known.add(running.key)
        self.running[running.key] = running
        self.note(running)
        self._go(run_task(self, running))

    def _stop(self, key: str, reason: str, *, at_once: bool = False) -> None:
        running = self.running.get(key)
        if running is None:
            return
        running.cancelled = reason
        if running.child is None:
            return
        if at_once:
            running.child.kill(reason)
            return
        running.child.terminate(reason)
        self._go(self._kill_later(running.child, self.settings.grace_s))

    async def _kill_later(self, child: Child, grace_s: float) -> None:
        await asyncio.sleep(grace_s)
        if child.pid:
            child.kill("the grace time is over")

    def _go(self, coroutine: Any) -> None:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # ---- what tasks need of their agent

    def note(self, running: Running) -> None:
        """Writes down what runs, so that the next life of this agent can end it and say so."""
        folder = self.folder / "tasks"
        folder.mkdir(exist_ok=True)
        pid = running.child.pid if running.child else None
        started = None
        if pid:
            with contextlib.suppress(psutil.Error):
                started = psutil.Process(pid).create_time()
        order = running.order
        record = {"task": order.task, "attempt": order.attempt, "boot": self.boot, "pid": pid, "started": started}
        draft = folder / f".{running.key}.tmp"
        draft.write_text(json.dumps(record))
        os.replace(draft, folder / f"{running.key}.json")

    def forget(self, running: Running) -> None:
        self.running.pop(running.key, None)
        (self.folder / "tasks" / f"{running.key}.json").unlink(missing_ok=True)

    def progressed(self, running: Running, done: float, of: float) -> None:
        """Keeps the program's progress as a reading, at most one a second."""
        running.done, running.of = done, of
        now = time.monotonic()
        if now - running.told_at < 1.0 or not self.nc.is_connected:
            return
        running.told_at = now
        spec = running.order.spec
        reading = TaskProgress(node=self.settings.node, task=running.order.task, lane=spec.lane, kind=spec.kind,
                               done=done, of=of)  # fmt: skip
        self._go(self._publish("progress", reading.model_dump_json()))

    async def _publish(self, reading: str, body: str) -> None:
        with contextlib.suppress(*TROUBLE):
            await self.nc.publish(f"tel.{token(self.settings.node)}.{reading}", body.encode())

    def _game_file(self, batch: str) -> Path:
        return self.folder / "games" / batch

    def games(self) -> list[Path]:
        folder = self.folder / "games"
        return [one for one in folder.iterdir() if not one.name.startswith(".")] if folder.exists() else []

    def keep_games(self, batch: str, path: Path) -> Path:
        """Moves a batch into custody; it stays until the store's copy was verified."""
        target = self._game_file(batch)
        target.parent.mkdir(exist_ok=True)
        os.replace(path, target)
        return target

    async def _upload(self, order: UploadBatch) -> None:
        path = self._game_file(order.batch)
        key = f"{order.batch}-{order.grant}"
        report: ReportStored | ReportTransferFailed
        if not path.exists():
            report = ReportTransferFailed(batch=order.batch, grant=order.grant, reason="the node has no such batch")
            self.spool.put(report, key=f"missing-{key}", attempt=0, names=("TransferFailed", *STORED))
            return
        try:
            async with asyncio.timeout(order.lease_s):
                url = await self.store.put(path, order.sha256)
        except (Transient, TimeoutError) as error:
            report = ReportTransferFailed(
                batch=order.batch, grant=order.grant, reason=f"{type(error).__name__}: {error}"
            )
            self.spool.put(report, key=f"failed-{key}", attempt=0, names=("TransferFailed", *STORED))
            return
        report = ReportStored(batch=order.batch, node=self.settings.node, url=url, sha256=order.sha256,
                              bytes=path.stat().st_size)  # fmt: skip
        self.spool.put(report, key=f"stored-{key}", attempt=0, names=STORED)

    async def guard_slot(self, running: Running) -> None:
        """Renews the training slot; past its own deadline the child ends, whatever the network says.

        Whoever is asked to give way gets a SIGTERM and the grace time to write a checkpoint.
        """
        spec = running.order.spec
        slot = spec.slot_token or 0
        deadline, scanned = time.monotonic() + self.settings.slot_lease_s, slot
        asked, told = -math.inf, False
        while (rest := deadline - time.monotonic()) > 0:
            with contextlib.suppress(*TROUBLE):
                async with asyncio.timeout(rest):
                    if time.monotonic() - asked >= self.settings.renew_s / 3:
                        asked = time.monotonic()
                        await self._renew(spec.lane, slot, spec.iteration)
                    said = await JetStreamLog(self.nc).load("evt.training-slots.pool.main.>", scanned)
                for raw in said:
                    scanned = raw.sequence
                    name, body = raw.subject.rpartition(".")[2], json.loads(raw.body)
                    if body.get("token") != slot:
                        continue
                    if name == "SlotRenewed":
                        deadline = max(deadline, asked - self.settings.renew_s + self.settings.slot_lease_s)
                    elif name in ("SlotExpired", "SlotPreempted"):
                        deadline = -math.inf
                    elif name == "PreemptionAsked" and running.child is not None and not told:
                        told = True
                        running.child.terminate(f"asked to give way by {body['by']}: {body['reason']}")
                        self._go(self._kill_later(running.child, float(body["grace_s"])))
            rest = max(0.0, deadline - time.monotonic())
            await asyncio.sleep(min(rest, 1.0, self.settings.renew_s / 3))
        self._stop(running.key, "the training slot is lost: it could not be renewed in time", at_once=True)

    async def _renew(self, lane: str, slot: int, correlation: str) -> None:
        bucket = int(time.time() // self.settings.renew_s)
        order = RenewSlot(lane=lane, token=slot)
        subject, headers, body = encode_order(
            order,
            derived_id(f"renew-{slot}-{bucket}", "agent", lane),
            now=clock.now(),
            source=f"node-agent/{self.settings.node}",
            correlation=correlation,
            expires_s=self.settings.renew_s,
        )
        await self.nc.jetstream(timeout=5).publish(subject, body, headers=headers, stream=COMMANDS)

    # ---- readings

    async def _beat(self) -> None:
        while True:
            if self.nc.is_connected:
                await self._publish("heartbeat", self._heartbeat().model_dump_json())
            if forsaken():
                self.log.error("the supervisor is gone; this agent saves what runs and ends")
                self.stopping.set()
            await asyncio.sleep(self.settings.beat_s)

    def _heartbeat(self) -> Heartbeat:
        games = self.games()
        now = time.monotonic()
        return Heartbeat(
            node=self.settings.node,
            boot=self.boot,
            build=__version__,
            contracts=fingerprint(),
            ephemeral=self.settings.ephemeral,
            tags=self.settings.tags,
            kinds=self.settings.kinds,
            machine=self.settings.machine,
            seats=self.settings.seats,
            running=tuple(
                RunningTask(
                    task=one.order.task,
                    attempt=one.order.attempt,
                    kind=one.order.spec.kind,
                    lane=one.order.spec.lane,
                    for_s=round(now - one.began, 1),
                    done=one.done / one.of if one.of else None,
                )
                for one in self.running.values()
            ),
            at=clock.now(),
            spooled=self.spool.depth + len(games),
            spooled_bytes=sum(one.stat().st_size for one in games if one.exists()),
            draining=self.draining,
            up_s=round(now - self._began, 1),
            resources=self.machine.read(),
        )

    async def _notice(self) -> None:
        """A provider's notice that this machine will go: the same as SIGTERM."""
        while self.settings.notice_file is not None:
            if self.settings.notice_file.exists():
                self.log.warning("preemption was noticed", file=str(self.settings.notice_file))
                self.stopping.set()
                return
            await asyncio.sleep(1)

    def _live(self) -> tuple[bool, dict[str, Any]]:
        return not self.stopping.is_set(), {"node": self.settings.node, "boot": self.boot}

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
