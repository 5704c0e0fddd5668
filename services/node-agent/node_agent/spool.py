"""Outcomes on disk before they are sent, and sent until the owner's fact is seen: a partition loses nothing."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import nats.errors
from nats.aio.client import Client
from nats.js.errors import Error as JetStreamError

from sparring import clock, telemetry
from sparring.contracts.base import Order
from sparring.envelope import derived_id, encode_order
from sparring.errors import LogUnavailable
from sparring.log.jetstream import JetStreamLog
from sparring.streams import COMMANDS
from sparring.subjects import ref_of

DELAYS_S = (0.2, 0.3, 0.5, 1.0, 2.0, 5.0, 10.0)
AGAIN_S = 10.0
TROUBLE = (nats.errors.Error, JetStreamError, LogUnavailable, TimeoutError, OSError)


@dataclass
class Outcome:
    """An order that waits until `seen` says that its owner has decided on it."""

    id: str
    subject: str
    headers: dict[str, str]
    body: str
    pattern: str
    attempt: int
    names: tuple[str, ...]
    sent_at: float = field(default=0.0, compare=False)


class Spool:
    """Orders in a folder, published in order per entity, each kept until it is seen."""

    def __init__(self, folder: Path, nc: Client, source: str, log: Any) -> None:
        self._folder, self._nc, self._source, self._log = folder, nc, source, log
        self._facts = JetStreamLog(nc)
        self._chains: dict[str, asyncio.Queue[tuple[Path, Outcome, asyncio.Event]]] = {}
        self._workers: dict[str, asyncio.Task[None]] = {}
        self._watches: set[asyncio.Task[None]] = set()
        self._serial = 0
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def depth(self) -> int:
        return sum(1 for _ in self._folder.glob("*.json"))

    def recover(self) -> None:
        """Takes up what an earlier life of this agent left."""
        for file in sorted(self._folder.glob("*.json")):
            outcome = Outcome(**json.loads(file.read_text()))
            outcome.names = tuple(outcome.names)
            self._queue(file, outcome)

    def put(
        self, order: Order, *, key: str, attempt: int, names: tuple[str, ...], correlation: str = ""
    ) -> asyncio.Event:
        """Writes the order down and sends it; the event is set once a fact among `names` is seen.

        `names` are the classes of facts that answer the order; facts of an attempt below `attempt` do not count. Raises
        OSError, with nothing written, when the disk is full.
        """
        subject, headers, body = encode_order(
            order,
            derived_id(key, type(order).__name__, order.id),
            now=clock.now(),
            source=self._source,
            correlation=correlation,
            traceparent=telemetry.current_traceparent() or telemetry.traceparent_of(correlation),
        )
        outcome = Outcome(headers["ce-id"], subject, headers, body.decode(), ref_of(order).pattern, attempt, names)
        self._serial += 1
        file = self._folder / f"{time.time_ns():020d}-{self._serial:04d}.json"
        draft = file.with_suffix(".tmp")
        try:
            with draft.open("w") as handle:
                record = asdict(outcome)
                record.pop("sent_at")
                json.dump(record, handle)
                handle.flush()
                os.fsync(handle.fileno())
            os.replace(draft, file)
        except OSError:
            draft.unlink(missing_ok=True)
            raise
        return self._queue(file, outcome)

    def _queue(self, file: Path, outcome: Outcome) -> asyncio.Event:
        done = asyncio.Event()
        chain = outcome.pattern
        if chain not in self._chains:
            self._chains[chain] = asyncio.Queue()
            self._workers[chain] = asyncio.create_task(self._work(chain))
        self._chains[chain].put_nowait((file, outcome, done))
        return done

    async def _work(self, chain: str) -> None:
        """Publishes a chain's outcomes in order; each is then watched by itself until its owner's fact is there."""
        queue = self._chains[chain]
        try:
            while not queue.empty():
                file, outcome, done = queue.get_nowait()
                await self._published(outcome)
                watch = asyncio.create_task(self._until_seen(file, outcome, done))
                self._watches.add(watch)
                watch.add_done_callback(self._watches.discard)
        finally:
            # a node has a chain for every task and every batch: what is sent leaves nothing behind
            del self._chains[chain], self._workers[chain]

    async def _published(self, outcome: Outcome) -> None:
        tries = 0
        while True:
            try:
                js, body = self._nc.jetstream(timeout=5), outcome.body.encode()
                await js.publish(outcome.subject, body, headers=dict(outcome.headers), stream=COMMANDS)
                outcome.sent_at = time.monotonic()
                return
            except TROUBLE as error:
                self._log.warning("an outcome waits in the spool", subject=outcome.subject, error=repr(error))
                await asyncio.sleep(DELAYS_S[min(tries, len(DELAYS_S) - 1)])
                tries += 1

    async def _until_seen(self, file: Path, outcome: Outcome, done: asyncio.Event) -> None:
        tries = 0
        while True:
            await asyncio.sleep(DELAYS_S[min(tries, len(DELAYS_S) - 1)])
            tries += 1
            try:
                if await self._seen(outcome):
                    break
            except TROUBLE as error:
                self._log.warning("an outcome waits in the spool", subject=outcome.subject, error=repr(error))
                continue
            if time.monotonic() - outcome.sent_at >= AGAIN_S:
                await self._published(outcome)
        file.unlink(missing_ok=True)
        done.set()

    async def _seen(self, outcome: Outcome) -> bool:
        for raw in await self._facts.load(outcome.pattern):
            if raw.headers.get("Sparring-Order") == outcome.id:
                return True
            name = raw.subject.rsplit(".", 1)[-1]
            if name in outcome.names and int(json.loads(raw.body).get("attempt", outcome.attempt)) >= outcome.attempt:
                return True
        return False

    async def flushed(self, within_s: float, still: Callable[[], bool] = lambda: False) -> bool:
        """Whether everything is seen within the time."""
        end = time.monotonic() + within_s
        while time.monotonic() < end:
            if not self.depth and not still():
                return True
            await asyncio.sleep(0.1)
        return False
