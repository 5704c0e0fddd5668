"""How long a handler may take: what its service declares, and more while health sees that it needs more."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from sparring.contracts.health import ThresholdMoved
from sparring.contracts.parts import WELL_WITHIN, handler_limit
from sparring.decider import Recorded
from sparring.envelope import recorded
from sparring.log import JetStreamLog
from sparring.log.archived import ArchivedLog
from sparring.subjects import filter_of, token

# well below ack_wait: what a handler works on is not delivered to another meanwhile
IN_HAND_S = 20.0


class Patience:
    """The limit of one service's handlers, in seconds, and how many of them ended well within it."""

    def __init__(self, service: str, least_s: float) -> None:
        self.name = handler_limit(service)
        self.least_s = self.seconds = least_s
        self.measured = self.within = 0

    async def remember(self, nc: Client) -> None:
        """Adopts the move that the log holds last. The archive is opened only where the stream says that it has one."""
        subject = filter_of(ThresholdMoved).replace("*", token(self.name))
        entity, _, name = subject.rpartition(".")
        found = await JetStreamLog(nc).load(f"{entity}.>")
        moves = [raw for raw in found if raw.subject.endswith(name)]
        if found and not moves:
            moves = await ArchivedLog(nc).load(subject)
        for raw in moves[-1:]:
            self.adopt(recorded(raw.sequence, raw.subject, raw.headers, raw.body, raw.at))

    def adopt(self, one: Recorded) -> None:
        """A move of this service's threshold holds from now on, never below what the service declares."""
        if isinstance(one.fact, ThresholdMoved) and one.fact.threshold == self.name:
            self.seconds = max(self.least_s, one.fact.value)

    def note(self, seconds: float, limit_s: float) -> None:
        """A handler ended, or was ended, after that long; the limit is the one that it began under."""
        self.measured += 1
        self.within += seconds <= WELL_WITHIN * limit_s


@contextmanager
def in_hand(message: Msg) -> Iterator[None]:
    """Tells the server every 20 s that the message is being worked on; it waits a minute for an answer otherwise."""
    loop, told = asyncio.get_running_loop(), set[asyncio.Task[None]]()
    timer: asyncio.TimerHandle | None = None

    async def tell() -> None:
        with suppress(nats.errors.Error, OSError):
            await message.in_progress()

    def wait() -> None:
        nonlocal timer
        timer = loop.call_later(IN_HAND_S, again)

    def again() -> None:
        task = loop.create_task(tell())
        told.add(task)
        task.add_done_callback(told.discard)
        wait()

    wait()
    try:
        yield
    finally:
        if timer is not None:
            timer.cancel()
