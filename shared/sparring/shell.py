"""Binds a service's pure parts to NATS: one process, one connection, one log, one place for time and ids."""

from __future__ import annotations

import asyncio
import hashlib
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import nats.errors
import psutil
from faststream import AckPolicy
from faststream.nats import JStream, NatsBroker, PullSub
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.kv import KeyValue

from sparring import __version__, clock, garbage, logs, telemetry
from sparring.artifacts import ArtifactStore, open_store
from sparring.binding import Repeats, adoption, order_id
from sparring.connection import close
from sparring.contracts import fingerprint
from sparring.contracts.base import Order
from sparring.contracts.health import ThresholdMoved
from sparring.contracts.readings import ServiceBeat
from sparring.copies import Copies
from sparring.decider import Action, Append, Context, Recorded, Send
from sparring.delivery import Delivery, middleware_of
from sparring.dispatch import Dispatch
from sparring.ending import comes
from sparring.entity_store import Because, EntityStore
from sparring.envelope import encode_order
from sparring.errors import LogUnavailable, LostRace, SparringError
from sparring.faults import fault
from sparring.hearing import Hearing
from sparring.lease import Lease
from sparring.log.archived import ArchivedLog
from sparring.log.jetstream import JetStreamLog, born
from sparring.options import Options, parse_options
from sparring.patience import Patience
from sparring.probes import serve
from sparring.projection import Projection
from sparring.pulls import rest_while_cut_off
from sparring.readings import Readings
from sparring.seldom import Seldom
from sparring.service import Service, ServiceSettings
from sparring.settings import read_settings
from sparring.snapshots import Snapshots
from sparring.streams import COMMANDS, FAILURES
from sparring.subjects import token
from sparring.supervisor import forsaken
from sparring.together import joined, side_by_side
from sparring.topology import consumer_config, declare_durable, declare_topology

BEAT_S = 5.0
DRAIN_S = 20.0
HANDLERS_AT_ONCE = 16
# a planner takes at most half a core: what is new meanwhile is looked at together
PLANNING_REST = 1.0
ACTIONS_AT_ONCE = 16
RECONNECTED_S = 1.0


class Shell:
    """One running replica of a service. What workers may use: `picture`, `artifacts`, `nc`, `js`, `send`, `append`,
    `context`, `leads`, `stopping` and `log`."""

    def __init__(self, service: Service, options: Options, settings: ServiceSettings) -> None:
        self.service, self.options, self.settings = service, options, settings
        self.settings_hash = settings.fingerprint()
        self.replica = options.replica
        self.log = logs.set_up(service.name, options.replica)
        self.stopping = asyncio.Event()
        self.readings = Readings()
        self.exit_code = 0
        self.patience = Patience(service.name, service.handler_s)
        self._repeats, self._seldom = Repeats(), Seldom()
        self._planned_to = self._appended_to = 0
        self._loop_lag = 0.0
        self._began = time.monotonic()
        self._unserved, self._reconnected = asyncio.Event(), asyncio.Event()

    # ---- what decisions may look at

    @property
    def picture(self) -> Any:
        return self.hearing.picture

    @property
    def leads(self) -> bool:
        return self.lease.held

    def _fit(self) -> bool:
        """Whether this replica can plan at all: plans are made on the picture, so broken tables don't count."""
        return not (self.hearing.stuck or self.hearing.deaf)

    def now(self) -> datetime:
        return clock.now()

    def context(self) -> Context:
        return Context(
            now=self.now(),
            settings=self.settings,
            settings_hash=self.settings_hash,
            picture=self.hearing.picture,
            read_to=self.hearing.position,
            readings=self.readings.now(),
            watch=self.readings.watch(self.nc.is_connected),
        )

    # ---- what follows from decisions

    async def send(
        self,
        order: Order,
        key: str,
        *,
        correlation: str = "",
        traceparent: str = "",
        cause: str = "",
        expires_s: float | None = None,
    ) -> None:
        """Publishes the order durably; its id derives from key, type and target. Raises LogUnavailable."""
        id = order_id(order, key)
        trace = traceparent or telemetry.current_traceparent() or telemetry.traceparent_of(correlation)
        subject, headers, body = encode_order(
            order,
            id,
            now=self.now(),
            source=f"{self.service.name}/{self.replica}",
            cause=cause,
            correlation=correlation,
            traceparent=trace,
            expires_s=expires_s,
        )
        try:
            await self.js.publish(subject, body, headers=headers, stream=COMMANDS, timeout=5)
        except (nats.errors.Error, TimeoutError, OSError) as error:
            raise LogUnavailable(f"{subject} was not acknowledged: {error!r}") from error
        fault("published")

    async def append(self, action: Append, *, cause: str = "", order: str = "") -> Sequence[Recorded]:
        """Carries out a decision over several entities; returns the facts."""
        context = self.now()
        trace = action.traceparent or telemetry.current_traceparent() or telemetry.traceparent_of(action.correlation)
        because = Because(
            source=f"{self.service.name}/{self.replica}",
            now=context,
            id=clock.new_id(),
            order=order,
            cause=cause,
            correlation=action.correlation,
            traceparent=trace,
        )
        outcome = await self.store.execute(action.entities, action.decide, because)
        self.appended(outcome.facts)
        return outcome.facts

    async def carry_out(self, action: Action, *, cause: str = "") -> Sequence[Recorded]:
        """Appends or sends; returns the facts that it appended."""
        if isinstance(action, Append):
            with telemetry.span(
                f"{self.service.name} decide", traceparent=action.traceparent, correlation=action.correlation
            ):
                return await self.append(action, cause=cause)
        now = time.monotonic()
        if not self._repeats.due(action, now):
            return ()
        with telemetry.span(
            f"{self.service.name} send {type(action.order).__name__}",
            traceparent=action.traceparent,
            correlation=action.correlation,
        ):
            await self.send(
                action.order,
                action.key,
                correlation=action.correlation,
                cause=cause,
                expires_s=action.expires_s,
            )
        self._repeats.sent(action, now)
        return ()

    def appended(self, facts: Sequence[Recorded]) -> None:
        """Notes what this process appended; writes the root of an iteration that closed."""
        for one in facts:
            self._appended_to = max(self._appended_to, one.sequence)
            closing = self.service.traces.get(type(one.fact))
            if closing is not None:
                name, start, attributes = closing(one)
                telemetry.write_root(name, one.correlation, start, one.at, **attributes)

    # ---- life

    async def run(self) -> int:
        """Runs until a signal; returns the exit code."""
        for signum in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(signum, self.stopping.set)
        self.broker = NatsBroker(
            self.options.nats,
            name=f"{self.service.name}/{self.replica}",
            user_credentials=self.options.creds or None,
            max_reconnect_attempts=-1,
            reconnect_time_wait=1,
            ping_interval=10,
            error_cb=self._on_error,
            disconnected_cb=self._on_disconnected,
            reconnected_cb=self._on_reconnected,
            closed_cb=self._on_closed,
            inbox_prefix=f"_INBOX.{self.service.package}",
            apply_types=False,
            logger=None,
        )
        probes = await self._serve_probes()
        tasks: list[asyncio.Task[Any]] = []
        try:
            if not await self._begin():
                return self.exit_code
            tasks = [asyncio.create_task(one) for one in self._coroutines()]
            try:
                await self._subscribe()
            except (nats.errors.Error, TimeoutError, OSError) as error:
                self.log.error("the server went away during the start; the supervisor starts again", error=repr(error))
                self.exit_code = 1
                return self.exit_code
            garbage.spare_what_is_there()
            self._unserved.set()
            self.log.info("serving", position=self.hearing.position, settings=self.settings_hash)
            for task in tasks:
                task.add_done_callback(self._on_task_done)
            await self.stopping.wait()
        finally:
            if probes is not None:
                probes.close()
            await self._drain(tasks)
        return self.exit_code

    def _coroutines(self) -> list[Any]:
        ways = [
            self.hearing.run(self.stopping),
            self.lease.keep(self.stopping, self._fit),
            self._beat(),
            self._watch_loop_lag(),
            self._declare_again(),
            self._plan(),
            self.copies.keep(lambda: self.leads, self.stopping),
        ]
        return ways + [worker(self) for worker in self.service.workers]

    async def _begin(self) -> bool:
        """Everything before the first message, each step until the server answers: services start in any order."""
        telemetry.set_up(self.service.name, self.replica)
        for step in (self._connect, self._prepare, self._adopt_settings, self._declare_durables):
            await self._until_answered(step)
        return not self.stopping.is_set()

    async def _until_answered(self, step: Callable[[], Awaitable[None]]) -> None:
        while not self.stopping.is_set():
            try:
                await step()
                return
            except (nats.errors.Error, TimeoutError, OSError, LogUnavailable, LostRace) as error:
                self.log.warning("no answer yet", url=self.options.nats, step=step.__name__, error=repr(error))
                await self.pause(0.5)

    async def _connect(self) -> None:
        self.nc: Client = await self.broker.connect()
        self.js: JetStreamContext = self.nc.jetstream(timeout=5)
        await self._declare()

    async def _declare(self) -> None:
        for drift in await declare_topology(self.nc, replicas=self.options.replicas):
            self.log.error("the server's settings drifted", drift=str(drift))

    async def _declare_again(self) -> None:
        """A server that was started anew has lost the streams that it holds in memory: readings are kept by none then."""
        while not self.stopping.is_set():
            if await comes(self._reconnected, RECONNECTED_S):
                self._reconnected.clear()
                await self._until_answered(self._declare)

    async def _prepare(self) -> None:
        self.identity = await born(self.nc)
        telemetry.salt_with(self.identity)
        self.store = EntityStore(JetStreamLog(self.nc))
        self.failures: KeyValue = await self.js.key_value(FAILURES)
        self.delivery = Delivery(self.failures.put, self.log, f"{__version__} {fingerprint()}")
        self.lease = Lease(self.nc, self.service.name, self.replica)
        self.artifacts: ArtifactStore = await open_store(self.options.artifacts, self.js)
        hearing = self._hearing()
        await hearing.prepare()
        await self.patience.remember(self.nc)
        hearing.tells[ThresholdMoved] = self.patience.adopt
        self.hearing = hearing
        await self._prepare_copies()
        await self.readings.listen(self.nc, self.service.readings)

    @property
    def _folder(self) -> Path:
        folder = self.options.data / self.service.name / self.replica
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    async def _prepare_copies(self) -> None:
        models, snapshots = self.service.read_models, Snapshots(self.nc, self.identity)
        log = ArchivedLog(self.nc)
        self.copies = Copies(self.hearing, log, snapshots, self.service.name, models, self._folder, self.log)
        await self.copies.restore()
        await self.copies.serve(self.nc, self.replica)

    def _hearing(self) -> Hearing:
        folder = self._folder
        models = self.service.read_models
        name = hashlib.sha256(self.identity.encode()).hexdigest()[:8]
        return Hearing(
            ArchivedLog(self.nc),
            self.service.picture,
            (lambda: Projection(folder / f"read-{name}.duckdb", models)) if models else None,
            checkpoint=folder / "picture.json",
            identity=f"{self.identity} {__version__} {fingerprint()}",
            logger=self.log,
        )

    async def _adopt_settings(self) -> None:
        await self.append(adoption(self.service, self.settings))

    async def _declare_durables(self) -> None:
        for durable in self.service.durables():
            for drift in await declare_durable(self.js, durable):
                self.log.error("a consumer's settings drifted", drift=str(drift))

    async def _subscribe(self) -> None:
        at_once = 1 if self.service.ordered else HANDLERS_AT_ONCE
        dispatch = Dispatch(self)
        self.broker.add_middleware(middleware_of(self.delivery))
        for durable in self.service.durables():

            async def handle(message: Any) -> None:
                await dispatch.on_message(message.raw_message)

            async def as_it_is(message: Any) -> Any:
                return message

            self.broker.subscriber(
                durable.filters[0] if len(durable.filters) == 1 else "",
                stream=JStream(durable.stream, declare=False),
                durable=durable.name,
                # a fetch of several waits for the last of them while the first one lies in its hands
                pull_sub=PullSub(batch_size=1, timeout=1.0),
                config=consumer_config(durable),
                ack_policy=AckPolicy.MANUAL,
                inbox_prefix=f"_INBOX.{self.service.package}".encode(),
                decoder=as_it_is,
                max_workers=at_once,
            )(handle)
        await self.broker.start()
        rest_while_cut_off(self.broker, self.nc)

    async def _plan(self) -> None:
        """The planner: after every batch of facts and at every tick, in the replica that holds the lease."""
        plan = self.service.plan
        if plan is None:
            return
        end = await JetStreamLog(self.nc).end()
        while not self.stopping.is_set():
            await self._something_new()
            if not self.leads or self.hearing.stuck or self.hearing.position < end or not self.nc.is_connected:
                continue
            if self.hearing.position < self._planned_to:
                # what the last plan decided is on its way into the picture
                continue
            began, chains = time.thread_time(), list[list[Action]]()
            with self._planning():
                chains = side_by_side(joined(plan(self.context()), self.now()))
            spent = time.thread_time() - began
            if chains:
                fault("reacted")
            room = asyncio.Semaphore(ACTIONS_AT_ONCE)
            await asyncio.gather(*(self._in_turn(chain, room) for chain in chains))
            await self.pause(min(self.service.tick_s, PLANNING_REST * spent))

    async def _in_turn(self, chain: Sequence[Action], room: asyncio.Semaphore) -> None:
        async with room:
            with self._planning():
                for action in chain:
                    facts = await self.carry_out(action)
                    self._planned_to = max([self._planned_to, *(one.sequence for one in facts)])

    @contextmanager
    def _planning(self) -> Iterator[None]:
        """What goes wrong in a plan is said; the next tick repeats it, and what goes wrong again is said once a minute."""
        try:
            yield
        except (LogUnavailable, LostRace) as error:
            self.log.warning("a plan was not carried out; the next tick repeats it", error=str(error))
        except SparringError as error:
            if self._seldom.news(repr(error), time.monotonic()):
                self.log.error("the planner failed", error=f"{type(error).__name__}: {error}")
        # a planner's bug must not end the process: orders are still obeyed, and the alarm is in the log
        except Exception as error:
            if self._seldom.news(repr(error), time.monotonic()):
                self.delivery.tally.failed += 1
                self.log.error("the planner failed", exc_info=True)

    async def _something_new(self) -> None:
        if await comes(self.hearing.changed, self.service.tick_s):
            self.hearing.changed.clear()

    async def _beat(self) -> None:
        process = psutil.Process()
        subject = f"tel.{token(f'svc-{self.service.name}-{self.replica}')}.heartbeat"
        while not self.stopping.is_set():
            tally = self.delivery.tally
            beat = ServiceBeat(
                service=self.service.name,
                replica=self.replica,
                build=__version__,
                contracts=fingerprint(),
                leader=self.leads,
                position=self.hearing.position,
                log_end=max(self.hearing.position, self._appended_to),
                handled=tally.handled,
                failed=tally.failed,
                redelivered=tally.redelivered,
                loop_lag_s=round(self._loop_lag, 4),
                up_s=round(time.monotonic() - self._began, 1),
                rss_bytes=process.memory_info().rss,
                settings_hash=self.settings_hash,
                handler_s=self.patience.seconds,
                handler_least_s=self.patience.least_s,
                measured=self.patience.measured,
                within=self.patience.within,
                at=self.now(),
                stuck=self.hearing.trouble[:500],
            )
            if self.nc.is_connected:
                await self.nc.publish(subject, beat.model_dump_json().encode())
            if forsaken():
                self.log.error("the supervisor is gone; this service ends")
                self.stopping.set()
            await self.pause(BEAT_S)

    async def _watch_loop_lag(self) -> None:
        while not self.stopping.is_set():
            asked = time.monotonic()
            await asyncio.sleep(0.5)
            lag = time.monotonic() - asked - 0.5
            self._loop_lag = max(lag, self._loop_lag * 0.9)
            if lag > 1.0:
                self.log.warning("the event loop stood still", for_s=round(lag, 2))

    async def pause(self, seconds: float) -> None:
        await comes(self.stopping, seconds)

    def _on_task_done(self, task: asyncio.Task[Any]) -> None:
        if not task.cancelled() and task.exception() is not None:
            self.log.error("a part of the service ended", exc_info=task.exception())
            self.exit_code = 1
            self.stopping.set()

    async def _drain(self, tasks: Sequence[asyncio.Task[Any]]) -> None:
        self.stopping.set()
        # the parts need the connection to say goodbye, and so do the handlers that are under way
        _, late = await asyncio.wait(tasks, timeout=DRAIN_S / 4) if tasks else (set(), set())
        for task in late:
            task.cancel()
        try:
            async with asyncio.timeout(DRAIN_S / 2):
                for one in self.broker.subscribers:
                    await one.stop()
        except (TimeoutError, nats.errors.Error) as error:
            self.log.warning("handlers did not end in time", error=repr(error))
        # closed, not drained: nats-py never counts a message done that a fetch found waiting, and would wait for it
        if hasattr(self, "nc"):
            await close(self.nc)
        if hasattr(self, "hearing"):
            self.hearing.close()
        await asyncio.to_thread(telemetry.flush)

    async def _serve_probes(self) -> asyncio.Server | None:
        if not self.options.http:
            return None
        return await serve(self.options.http, self._live, self._ready, self.options.http_host)

    def _live(self) -> tuple[bool, Mapping[str, Any]]:
        return not self.stopping.is_set(), {"service": self.service.name, "loop_lag_s": self._loop_lag}

    def _ready(self) -> tuple[bool, Mapping[str, Any]]:
        serving = self._unserved.is_set()
        stuck = self.hearing.trouble if serving else ""
        connected = serving and self.nc.is_connected
        body = {
            "service": self.service.name,
            "connected": connected,
            "stuck": stuck,
            "position": self.hearing.position if serving else 0,
            "leads": self.leads if serving else False,
        }
        return bool(connected and not stuck and not self.stopping.is_set()), body

    async def _on_error(self, error: Exception) -> None:
        text = str(error)
        if "permissions violation" in text.lower():
            self.log.error("this user may not do that; the service ends", error=text)
            self.exit_code = 1
            self.stopping.set()
        elif text:
            self.log.warning("connection", error=text)

    async def _on_disconnected(self) -> None:
        if not self.stopping.is_set():
            self.log.warning("disconnected")

    async def _on_reconnected(self) -> None:
        self.readings.reconnected()
        self._reconnected.set()
        self.log.info("connected again")

    async def _on_closed(self) -> None:
        if not self.stopping.is_set():
            self.log.error("the connection closed for good; the supervisor starts this service again")
            self.exit_code = 1
            self.stopping.set()


def run(service: Service, argv: Sequence[str] | None = None) -> None:
    """The main function of every service: options, settings, the shell. Bad input ends with exit code 2."""
    from sparring.errors import BadInput

    garbage.look_seldom()
    try:
        options = parse_options(service.name, argv)
        settings, _ = read_settings(service.settings, service.name, file=options.config)
    except BadInput as error:
        print(f"{service.name}: {error}", file=sys.stderr)
        sys.exit(2)
    sys.exit(asyncio.run(_run(service, options, settings)))


async def _run(service: Service, options: Options, settings: ServiceSettings) -> int:
    return await Shell(service, options, settings).run()


__all__ = ["Path", "Send", "Shell", "run"]
