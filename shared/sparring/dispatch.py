"""From an order on the wire to facts in the log."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from nats.aio.msg import Msg
from opentelemetry.trace import SpanKind

from sparring import telemetry
from sparring.binding import Handlers, obey
from sparring.contracts.base import Fact, Order
from sparring.contracts.health import ReportRedriven
from sparring.decider import Recorded
from sparring.delivery import ATTEMPTS
from sparring.entity_store import Outcome
from sparring.envelope import Envelope, check_expiry, decode, derived_id, read_envelope, recorded
from sparring.errors import DependencyDown, HandlerTimeout, Permanent
from sparring.faults import fault
from sparring.patience import in_hand

if TYPE_CHECKING:
    from sparring.shell import Shell

LETTER, ATTEMPT, FORCED = "Sparring-Letter", "Sparring-Attempt", "Sparring-Forced"
# before each header of the original, as the DLQ keeps it
KEPT = "Sparring-Original-"
# well below ack_wait: a message that waits for a dependency stays in these hands
MOST_WAIT_S = 5.0
# from then on it is written down that the message waits, so that nobody takes it for lost
LONG_WAIT_S = 30.0


class Dispatch:
    """Runs the handlers of one service; every outcome is a return value or an error of the delivery table."""

    def __init__(self, shell: Shell) -> None:
        self._shell = shell
        self._handlers = Handlers(shell.service)

    async def on_message(self, message: Msg) -> None:
        """Handles an order or a fact of a reaction, and reports redriven letters."""
        headers: dict[str, str] = dict(message.headers or {})
        letter = headers.get(LETTER)
        last = message.metadata.num_delivered >= ATTEMPTS
        if last:
            await self._shell.delivery.last_attempt(message, self._shell.now())
        try:
            await self._patiently(message, headers)
        except Exception as error:
            if letter and (last or isinstance(error, Permanent)):
                await self._report(letter, headers, recovered=False, reason=f"{type(error).__name__}: {error}")
            raise
        if letter:
            await self._report(letter, headers, recovered=True)

    async def _patiently(self, message: Msg, headers: Mapping[str, str]) -> None:
        """Handles within the service's time; while a dependency is down the message waits here and no attempt is burnt.

        With every worker waiting nothing more is pulled. Raises HandlerTimeout.
        """
        delay_s, waited_s, told, patience = 0.2, 0.0, False, self._shell.patience
        while True:
            began, limit_s = time.monotonic(), patience.seconds
            try:
                with in_hand(message):
                    async with asyncio.timeout(limit_s) as limit:
                        await self._handle(message, headers)
                patience.note(time.monotonic() - began, limit_s)
                return
            except DependencyDown as error:
                if self._shell.stopping.is_set():
                    raise
                self._shell.log.warning("a dependency is down", subject=message.subject, error=str(error))
                if not told and (waited_s >= LONG_WAIT_S or message.metadata.num_delivered >= ATTEMPTS):
                    await self._shell.delivery.waits(message, error)
                    told = True
                await message.in_progress()
                await self._shell.pause(delay_s)
                waited_s += delay_s
                delay_s = min(MOST_WAIT_S, 2 * delay_s)
            except TimeoutError as error:
                if not limit.expired():
                    raise
                patience.note(time.monotonic() - began, limit_s)
                raise HandlerTimeout(f"no outcome within handler_s = {limit_s:g} s; see what it waits for") from error

    async def _handle(self, message: Msg, headers: Mapping[str, str]) -> None:
        meta = message.metadata
        envelope = read_envelope(headers, meta.timestamp)
        if not envelope.id:
            envelope = replace(envelope, id=derived_id("wire", meta.stream, str(meta.sequence.stream)))
        name = message.subject.rsplit(".", 1)[-1]
        with telemetry.span(
            f"{self._shell.service.name} {name}",
            traceparent=envelope.traceparent,
            correlation=envelope.correlation,
            kind=SpanKind.CONSUMER,
            attributes=_attributes(message, envelope),
        ):
            told = decode(message.subject, headers, message.data)
            if isinstance(told, Order):
                if headers.get(FORCED) != "yes":
                    check_expiry(envelope, self._shell.now())
                await self.obey(told, envelope)
            elif isinstance(told, Fact):
                sequence = int(headers.get("Sparring-Original-Sequence") or meta.sequence.stream)
                await self._react(recorded(sequence, message.subject, headers, message.data, meta.timestamp))

    async def obey(self, order: Order, envelope: Envelope) -> Outcome:
        """Decides on the order with the entity's present state and appends what follows."""
        shell = self._shell
        source, trace = f"{shell.service.name}/{shell.replica}", telemetry.current_traceparent()
        outcome = await obey(shell.store, self._handlers.command(order), order, envelope, shell, source, trace)
        self._shell.appended(outcome.facts)
        return outcome

    async def _react(self, one: Recorded) -> None:
        reaction = self._handlers.reaction(one.fact)
        if self._shell.hearing.stuck and self._shell.hearing.position < one.sequence:
            # until the upgrade the fact waits, and no attempt is burnt: not one letter for each fact behind the newer one
            raise DependencyDown(f"this process's picture stands still: {self._shell.hearing.stuck}")
        await self._shell.hearing.reached(one.sequence)
        actions = reaction.react(one, self._shell.context())
        fault("reacted")
        for action in actions:
            await self._shell.carry_out(action, cause=one.id)

    async def _report(self, letter: str, headers: Mapping[str, str], *, recovered: bool, reason: str = "") -> None:
        attempt = int(headers.get(ATTEMPT, "1"))
        order = ReportRedriven(letter=letter, attempt=attempt, recovered=recovered, reason=reason[:500])
        await self._shell.send(order, key=f"redriven-{letter}-{attempt}-{recovered}")


def _attributes(message: Msg, envelope: Envelope) -> dict[str, Any]:
    meta = message.metadata
    return {
        "messaging.system": "nats",
        "messaging.operation.type": "process",
        "messaging.destination.name": message.subject,
        "messaging.message.id": envelope.id,
        "messaging.nats.delivery_count": meta.num_delivered,
        "messaging.nats.stream_sequence": meta.sequence.stream,
        "messaging.consumer.group.name": meta.consumer,
    }
