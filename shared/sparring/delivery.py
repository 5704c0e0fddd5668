"""What becomes of a message: acknowledged, tried again later, or given up with its reason."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Any

from faststream import BaseMiddleware
from nats.aio.msg import Msg
from nats.js.errors import Error as JetStreamError

from sparring import telemetry
from sparring.errors import DependencyDown, Permanent, ReadModelBehind
from sparring.faults import fault

DELAYS_S = (1.0, 5.0, 30.0, 120.0)
JITTER = 0.1
ATTEMPTS = 5


@dataclass(frozen=True)
class Ack:
    """Handled: never delivered again."""


@dataclass(frozen=True)
class Retry:
    """Delivered again after the delay; the attempt counts."""

    delay_s: float


@dataclass(frozen=True)
class GiveUp:
    """Terminated; the server's advisory carries the reason to the dead-letter keeper."""

    reason: str
    transient: bool


Disposition = Ack | Retry | GiveUp


def disposition(error: BaseException | None, attempt: int, *, jitter: float = 0.0) -> Disposition:
    """The table: no error → ack; permanent → give up; anything else → retry with growing delay, at last give up.

    `attempt` counts from 1; `jitter` in [-1, 1] moves the delay by up to 10 %.
    """
    if error is None:
        return Ack()
    if isinstance(error, Permanent):
        return GiveUp(f"{type(error).__name__}: {error}", transient=False)
    if isinstance(error, ReadModelBehind | DependencyDown) and attempt < ATTEMPTS:
        return Retry(0.2 * attempt)
    if attempt >= ATTEMPTS:
        return GiveUp(f"{type(error).__name__}: {error}", transient=True)
    return Retry(DELAYS_S[min(attempt, len(DELAYS_S)) - 1] * (1 + JITTER * jitter))


@dataclass
class Tally:
    """What the process's handlers did so far."""

    handled: int = 0
    failed: int = 0
    redelivered: int = 0


Failures = Callable[[str, bytes], Awaitable[object]]


class Delivery:
    """Carries a disposition out; the failure is written down before the message is given up."""

    def __init__(self, put_failure: Failures, log: Any, build: str = "") -> None:
        """`build` is what the process runs: a letter that it could not handle goes again under another one."""
        self._put_failure, self._log, self.tally, self._build = put_failure, log, Tally(), build

    async def last_attempt(self, message: Msg, now: datetime) -> None:
        """Written down before it begins: a process that dies in it could not say so afterwards."""
        record = {
            "type": "NoAnswer",
            "message": "the last attempt ended without an answer: its process died or hung",
            "attempt": message.metadata.num_delivered,
            "trace": telemetry.trace_id_of((message.headers or {}).get("traceparent", "")),
            "transient": True,
            "given_up": False,
            "last_attempt_at": now.isoformat(),
            "subject": message.subject,
        }
        await self._put(message, record)

    async def waits(self, message: Msg, error: BaseException) -> None:
        """It waits for a dependency in this process's hands: neither lost nor in its last attempt."""
        await self._remember(message, error, message.metadata.num_delivered, transient=True, given_up=False)

    async def settle(self, message: Msg, error: BaseException | None) -> Disposition:
        attempt = message.metadata.num_delivered
        self._count(error, attempt)
        outcome = disposition(error, attempt, jitter=random.uniform(-1, 1))
        match outcome:
            case Ack():
                # synchronous: an acknowledgement that is lost would be another delivery
                await message.ack()
                fault("acked")
                if attempt >= ATTEMPTS:
                    await self._put(message, {"attempt": attempt, "given_up": False, "subject": message.subject})
            case Retry(delay):
                why = f"{type(error).__name__}: {error}"
                self._log.warning("tried again", subject=message.subject, attempt=attempt, delay_s=delay, error=why)
                await self._remember(message, error, attempt, transient=True, given_up=False)
                await message.nak(delay=delay)
            case GiveUp(reason, transient):
                self._log.error("given up", subject=message.subject, attempt=attempt, reason=reason, exc_info=error)
                written = await self._remember(message, error, attempt, transient=transient, given_up=True)
                if not written and attempt < ATTEMPTS:
                    # a letter without its exception helps nobody: what is not written down is not given up yet
                    outcome = Retry(DELAYS_S[attempt - 1])
                    await message.nak(delay=outcome.delay_s)
                    return outcome
                await message._client.publish(message.reply, b"+TERM " + reason[:400].encode())
                message._ackd = True
        return outcome

    def _count(self, error: BaseException | None, attempt: int) -> None:
        self.tally.redelivered += attempt > 1
        if error is None:
            self.tally.handled += 1
        else:
            self.tally.failed += 1

    async def _remember(
        self, message: Msg, error: BaseException | None, attempt: int, *, transient: bool, given_up: bool
    ) -> bool:
        record = {
            "type": type(error).__name__,
            "message": str(error)[:2000],
            "attempt": attempt,
            "trace": telemetry.trace_id_of(telemetry.current_traceparent())
            or telemetry.trace_id_of((message.headers or {}).get("traceparent", "")),
            "transient": transient,
            "given_up": given_up,
            "subject": message.subject,
        }
        return await self._put(message, record)

    async def _put(self, message: Msg, record: Mapping[str, object]) -> bool:
        """Whether it was written down."""
        meta = message.metadata
        key = f"{meta.stream}.{meta.consumer}.{meta.sequence.stream}"
        try:
            await self._put_failure(key, json.dumps({**record, "build": self._build}).encode())
        except (TimeoutError, JetStreamError, OSError) as failed:
            self._log.error("the failure could not be written down", key=key, error=repr(failed))
            return False
        return True


def middleware_of(delivery: Delivery) -> type[BaseMiddleware]:
    """The FastStream middleware that settles every message, undecodable ones included."""

    class SettleEveryMessage(BaseMiddleware):
        async def after_processed(
            self,
            exc_type: type[BaseException] | None = None,  # noqa: ARG002
            exc_val: BaseException | None = None,
            exc_tb: TracebackType | None = None,  # noqa: ARG002
        ) -> bool | None:
            if isinstance(exc_val, asyncio.CancelledError | KeyboardInterrupt | SystemExit):
                return False
            message: Msg = self.msg  # type: ignore[assignment]
            await delivery.settle(message, exc_val)
            return True

    return SettleEveryMessage
