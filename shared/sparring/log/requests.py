"""Requests and their answers without nats-py's detours: appends are the most frequent thing that a service waits for.

nats-py keeps the connection. It looks at each header that it sends, wakes two tasks for an answer and makes a message of it;
here headers go out as one block and an answer goes from the wire to who waits for it.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from functools import lru_cache
from itertools import count
from typing import NamedTuple
from weakref import WeakKeyDictionary

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.protocol.command import hpub_cmd

from sparring.log.headers import block_of
from sparring.log.wire import SwiftParser

# what no server lets pass through, or what would be another line than the one that is meant
_NAME = re.compile(r"[A-Za-z0-9-]+")
_SUBJECT = re.compile(r"[!-~]+")


class Answer(NamedTuple):
    """A reply's body; the status and its description where the server sent one instead of headers."""

    data: bytes
    status: str = ""
    description: str = ""


class Requests:
    """What one connection waits for: all answers come to one inbox, each to a subject of its own."""

    def __init__(self) -> None:
        self._waiting: dict[bytes, asyncio.Future[Answer]] = {}
        self._numbers = count(1)
        self._inbox = ""
        self._opening = asyncio.Lock()

    @classmethod
    def of(cls, nc: Client) -> Requests:
        """The connection's; made the first time."""
        known = _known.get(nc)
        return known if known is not None else _known.setdefault(nc, cls())

    async def ask(
        self, nc: Client, subject: str, body: bytes, headers: Mapping[str, str] | None, timeout_s: float
    ) -> Answer:
        """Raises nats-py's errors: TimeoutError when no answer comes, NoRespondersError when nobody hears the subject."""
        if not self._inbox:
            await self._open(nc)
        token, loop = b"%d" % next(self._numbers), asyncio.get_running_loop()
        answered = self._waiting[token] = loop.create_future()
        try:
            await publish(nc, subject, body, f"{self._inbox}.{token.decode()}", headers)
            timer = loop.call_later(timeout_s, _give_up, answered)
            try:
                answer: Answer = await answered
            finally:
                timer.cancel()
        finally:
            del self._waiting[token]
        if answer.status == "503":
            raise nats.errors.NoRespondersError
        return answer

    async def _open(self, nc: Client) -> None:
        async with self._opening:
            if self._inbox:
                return
            inbox = nc.new_inbox()
            # with a callback: what nats-py has begun to read is its to end, and may be an answer
            subscription = await nc.subscribe(f"{inbox}.*", cb=self._hear)
            SwiftParser.of(nc).sinks[b"%d" % subscription._id] = self._take
            self._inbox = inbox

    def _take(self, subject: bytes, _: bytes, head: bytes, body: bytes) -> None:
        answered = self._waiting.get(subject[subject.rfind(b".") + 1 :])
        # who gave up waits no longer
        if answered is not None and not answered.done():
            answered.set_result(_answer(head, body))

    async def _hear(self, message: Msg) -> None:
        headers = message.headers or {}
        status, description = headers.get("Status", ""), headers.get("Description", "")
        answered = self._waiting.get(message.subject.rpartition(".")[2].encode())
        if answered is not None and not answered.done():
            answered.set_result(Answer(message.data, status, description))


_known: WeakKeyDictionary[Client, Requests] = WeakKeyDictionary()


def _give_up(answered: asyncio.Future[Answer]) -> None:
    if not answered.done():
        answered.set_exception(nats.errors.TimeoutError())


def _answer(head: bytes, body: bytes) -> Answer:
    # NATS/1.0 503 No Responders
    if head[8:9] != b" ":
        return Answer(body)
    status, _, description = head[9 : head.find(b"\r\n")].decode().partition(" ")
    return Answer(body, status, description)


async def publish(nc: Client, subject: str, body: bytes, reply: str, headers: Mapping[str, str] | None) -> None:
    """What `nc.publish` does: by itself where a connection is well and headers are plain, else by nats-py."""
    block = _plain(headers) if headers and nc.is_connected and not nc.is_draining_pubs else None
    if block is None or len(body) > nc.max_payload or not _SUBJECT.fullmatch(subject):
        await nc.publish(subject, body, reply=reply, headers=None if headers is None else dict(headers))
        return
    nc.stats["out_msgs"] += 1
    nc.stats["out_bytes"] += len(body)
    await nc._send_command(hpub_cmd(subject, reply, block, body))
    if nc._flush_queue is not None and nc._flush_queue.empty():
        await nc._flush_pending()


def _plain(headers: Mapping[str, str]) -> bytes | None:
    """The header block as nats-py writes it; None where it would change a name or a value, or refuse it."""
    for name, value in headers.items():
        if not _is_name(name) or value != value.strip():
            return None
    block, lines = block_of(headers), len(headers) + 2
    return block if block.count(b"\n") == block.count(b"\r") == lines else None


@lru_cache(maxsize=4096)
def _is_name(name: str) -> bool:
    return _NAME.fullmatch(name) is not None
