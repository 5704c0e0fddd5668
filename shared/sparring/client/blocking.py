"""The client without async: one thread with an event loop, so that slots are renewed while the caller computes."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from opentelemetry.trace import Span

from sparring.client.results import Client
from sparring.client.slots import TrainingSlot
from sparring.client.tracing import own_span
from sparring.client.work import OwnTask
from sparring.contracts.base import Fact
from sparring.contracts.parts import Artifact
from sparring.decider import Recorded

P = ParamSpec("P")
R = TypeVar("R")


def _blocking(method: Callable[Concatenate[Client, P], Awaitable[R]]) -> Callable[Concatenate[BlockingClient, P], R]:
    def call(self: BlockingClient, /, *args: P.args, **kwargs: P.kwargs) -> R:
        async def run() -> R:
            return await method(self.client, *args, **kwargs)

        return self.run(run())

    call.__name__, call.__doc__ = method.__name__, method.__doc__
    return call


class BlockingClient:
    """`with sparring.connect(data=".sparring") as client: …`: every method of `Client`, returning when it is done."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="sparring-client", daemon=True)

    def run(self, coroutine: Coroutine[Any, Any, R]) -> R:
        """Runs it on the client's own loop and returns its result."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def __enter__(self) -> Self:
        self._thread.start()
        self.run(self.client.__aenter__())
        return self

    def __exit__(self, *_: object) -> None:
        self.run(self.client.__aexit__())
        self.run(self._loop.shutdown_asyncgens())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    send = _blocking(Client.send)
    ask = _blocking(Client.ask)
    flush = _blocking(Client.flush)
    rows = _blocking(Client.rows)
    can_spawn = _blocking(Client.can_spawn)
    can_train = _blocking(Client.can_train)
    can_schedule = _blocking(Client.can_schedule)
    estimate = _blocking(Client.estimate)
    health = _blocking(Client.health)
    backpressure = _blocking(Client.backpressure)
    role = _blocking(Client.role)
    model = _blocking(Client.model)
    fetch = _blocking(Client.fetch)
    fetch_model = _blocking(Client.fetch_model)
    lane = _blocking(Client.lane)
    shards = _blocking(Client.shards)
    submit = _blocking(Client.submit)
    cancel = _blocking(Client.cancel)
    wait = _blocking(Client.wait)
    keep = _blocking(Client.keep)
    selfplay_complete = _blocking(Client.selfplay_complete)
    sync_recommendations = _blocking(Client.sync_recommendations)
    sync_now = _blocking(Client.sync_now)
    transfer = _blocking(Client.transfer)
    training_progress = _blocking(Client.training_progress)
    training_complete = _blocking(Client.training_complete)

    def question(self, service: str, name: str, at: str | int | None = None, **asked: Any) -> Any:
        """A service's own rules, asked of the log."""
        return self.run(self.client.question(service, name, at, **asked))

    @contextlib.contextmanager
    def span(self, name: str, *, iteration: str = "", **attributes: Any) -> Iterator[Span]:
        """`with client.span("distil", iteration="hex5_2p-3"): …`; orders sent inside carry its context."""
        self.run(self.client.prepare_tracing())
        with own_span(name, iteration, attributes) as one:
            yield one

    def traced(
        self, name: str = "", *, iteration: str = "", **attributes: Any
    ) -> Callable[[Callable[P, R]], Callable[P, R]]:
        """As a decorator: each call is a span, named as the function unless told otherwise."""

        def around(function: Callable[P, R]) -> Callable[P, R]:
            @functools.wraps(function)
            def run(*args: P.args, **kwargs: P.kwargs) -> R:
                with self.span(name or function.__qualname__, iteration=iteration, **attributes):
                    return function(*args, **kwargs)

            return run

        return around

    @contextlib.contextmanager
    def training_slot(
        self, lane: str, *, priority: int = 0, lease_s: float = 90.0, within_s: float | None = None, holder: str = ""
    ) -> Iterator[BlockingSlot]:
        """The right to train the lane; renewed by the client's thread while the caller computes."""

        async def claimed() -> TrainingSlot:
            slot = self.client.training_slot(lane, priority=priority, lease_s=lease_s, within_s=within_s, holder=holder)
            await slot.claim()
            return slot

        slot = BlockingSlot(self, self.run(claimed()))
        try:
            yield slot
        finally:
            self.run(slot.slot.release())

    @contextlib.contextmanager
    def task(
        self, kind: str, lane: str, *, timeout_s: float = 3600.0, work: Mapping[str, Any] | None = None, task: str = ""
    ) -> Iterator[BlockingTask]:
        """Work in this very process, recorded as a task; usable as a decorator too."""
        own = self.client.task(kind, lane, timeout_s=timeout_s, work=work, task=task)
        self.run(own.__aenter__())
        try:
            yield BlockingTask(self, own)
        except BaseException as error:
            self.run(own.__aexit__(type(error), error, None))
            raise
        self.run(own.__aexit__(None, None, None))

    def subscribe(
        self, *classes: type[Fact], lane: str = "", since: int | None = None, durable: str = ""
    ) -> Iterator[Recorded]:
        """Facts as they happen; the loop ends when the caller leaves it."""
        facts = self.client.subscribe(*classes, lane=lane, since=since, durable=durable)

        async def following() -> Recorded:
            return await anext(facts)

        try:
            while True:
                yield self.run(following())
        finally:
            self.run(facts.aclose())  # type: ignore[attr-defined]


class BlockingSlot:
    """A slot that a thread renews. `lost` and `asked` answer at once; `check()` raises SlotLost."""

    def __init__(self, client: BlockingClient, slot: TrainingSlot) -> None:
        self._client, self.slot = client, slot
        self.token, self.lane, self.holder = slot.token, slot.lane, slot.holder

    @property
    def lost(self) -> bool:
        return self.slot.rest_s <= 0

    @property
    def asked(self) -> bool:
        """Whether the holder should write a checkpoint and leave."""
        return self.slot.asked.is_set()

    @property
    def reason(self) -> str:
        return self.slot.reason

    @property
    def rest_s(self) -> float:
        return self.slot.rest_s

    def check(self) -> None:
        self.slot.check()


class BlockingTask:
    """A task of the caller's own: numbers go into `evidence`, files in with `file(path, role)`."""

    def __init__(self, client: BlockingClient, own: OwnTask) -> None:
        self._client, self._own = client, own
        self.task, self.evidence = own.task, own.evidence

    def file(self, path: Path, role: str) -> Artifact:
        return self._client.run(self._own.file(path, role))


def connect(
    nats: str | None = None, data: str | None = None, creds: str = "", outbox: Path | None = None
) -> BlockingClient:
    """The client for scripts without async: `with sparring.connect() as client: client.submit("distill", "hex5_2p")`."""
    return BlockingClient(Client(nats, data, creds, outbox))
