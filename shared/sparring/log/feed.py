"""An ordered feed of a stream: a consumer of this process's own, made anew from the last sequence whenever in doubt."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime

import nats.errors
from nats.aio.client import Client
from nats.aio.subscription import Subscription
from nats.js import api
from nats.js.errors import Error as JetStreamError

from sparring.log.headers import Headers
from sparring.log.interface import Raw
from sparring.log.wire import SwiftParser

PULL = 5_000
# so far behind the end, messages are gathered into large batches; nearer to it each is handed on as it comes
FAR = 1_000
BEAT_S = 2.0
PULL_EXPIRES_S = 30.0
LARGEST_BATCH = 20_000


# subject, reply, header block, body
Arrived = tuple[bytes, bytes, bytes, bytes]


class _Doubt(Exception):
    """A gap, a lost consumer or connection, or silence: start again behind the last message that was handed on."""


class Feed:
    """Pulls in large batches while behind; hands on single messages within a millisecond when not."""

    def __init__(self, nc: Client, stream: str, after: int, filters: Sequence[str]) -> None:
        self._nc, self._stream, self.position = nc, stream, after
        self._filters = list(filters)
        self._subscription: Subscription | None = None
        self._consumer = ""
        self._delivered = 0
        self._asked = 0
        self._behind = 0
        self._arrived: deque[Arrived] = deque()
        self._something = asyncio.Event()

    async def batches(self) -> AsyncIterator[list[Raw]]:
        while True:
            try:
                await self._open()
                while True:
                    batch = await self._next()
                    yield batch
            except (_Doubt, nats.errors.Error, JetStreamError, TimeoutError, OSError):
                if self._nc.is_closed:
                    return
                await self.close()
                yield []
                await asyncio.sleep(0.1)

    def _check_connected(self) -> None:
        """Raises _Doubt: what is said to nobody would fill the client's buffer, in which others' words lie, too."""
        if not self._nc.is_connected:
            raise _Doubt

    async def _open(self) -> None:
        self._check_connected()
        config = api.ConsumerConfig(
            deliver_policy=api.DeliverPolicy.BY_START_SEQUENCE,
            opt_start_seq=self.position + 1,
            ack_policy=api.AckPolicy.NONE,
            filter_subjects=self._filters or None,
            inactive_threshold=60.0,
            mem_storage=True,
            num_replicas=1,
        )
        info = await self._nc.jetstream(timeout=5).add_consumer(self._stream, config)
        self._consumer, self._delivered, self._asked, self._behind = info.name, 0, 0, 0
        self._arrived = arrived = deque[Arrived]()

        def hear(*message: bytes) -> None:
            arrived.append(message)  # type: ignore[arg-type]
            self._something.set()

        # what was asked for bounds what can arrive
        self._inbox = self._nc.new_inbox()
        self._subscription = await self._nc.subscribe(self._inbox)
        SwiftParser.of(self._nc).sinks[b"%d" % self._subscription._id] = hear

    async def _ask(self) -> None:
        self._check_connected()
        request = {"batch": PULL, "expires": int(PULL_EXPIRES_S * 1e9), "idle_heartbeat": int(BEAT_S * 1e9)}
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{self._stream}.{self._consumer}"
        await self._nc.publish(subject, json.dumps(request).encode(), reply=self._inbox)
        self._asked += PULL

    async def _next(self) -> list[Raw]:
        """The next batch; empty after a beat of silence."""
        batch: list[Raw] = []
        await self._wait()
        while len(batch) < LARGEST_BATCH:
            if self._asked <= PULL // 2:
                await self._ask()
            if not self._arrived:
                if not batch or self._behind < FAR:
                    break
                await self._wait()
            while self._arrived and len(batch) < LARGEST_BATCH:
                self._take(self._arrived.popleft(), batch)
        if batch:
            self.position = batch[-1].sequence
        return batch

    async def _wait(self) -> None:
        """Until something arrived. Raises TimeoutError after three beats of silence."""
        if self._asked == 0:
            await self._ask()
        if not self._arrived:
            self._something.clear()
            async with asyncio.timeout(3 * BEAT_S):
                await self._something.wait()

    def _take(self, message: Arrived, batch: list[Raw]) -> None:
        subject, reply, head, body = message
        if not reply.startswith(b"$JS.ACK."):
            self._status(head)
            return
        # $JS.ACK.<stream>.<consumer>.<deliveries>.<stream sequence>.<consumer sequence>.<nanoseconds>.<pending>,
        # with domain and account hash before the stream where a reply has more than nine tokens
        parts = reply.split(b".")
        first = 5 if len(parts) == 9 else 7
        sequence, delivered, nanoseconds, behind = parts[first : first + 4]
        if int(delivered) != self._delivered + 1:
            raise _Doubt
        self._delivered, self._asked, self._behind = self._delivered + 1, self._asked - 1, int(behind)
        at = datetime.fromtimestamp(int(nanoseconds) // 1000 / 1e6, UTC)
        batch.append(Raw(int(sequence), at, subject.decode(), Headers(head), body))

    def _status(self, head: bytes) -> None:
        status, headers = head[9:12], Headers(head)
        if status == b"100":
            # the beat says what was delivered: what a broken connection swallowed would else be missed until the next message
            if int(headers.get("Nats-Last-Consumer") or self._delivered) != self._delivered:
                raise _Doubt
            return
        if status in (b"404", b"408"):
            # this pull is over; another one may still be open, asking again is harmless
            self._asked = 0
            return
        raise _Doubt

    async def close(self) -> None:
        if self._subscription is not None:
            SwiftParser.of(self._nc).sinks.pop(b"%d" % self._subscription._id, None)
        if self._subscription is not None and not self._nc.is_closed:
            with contextlib.suppress(nats.errors.Error, JetStreamError, TimeoutError, OSError):
                await self._subscription.unsubscribe()
                await self._nc.jetstream(timeout=1).delete_consumer(self._stream, self._consumer)
        self._subscription = None
