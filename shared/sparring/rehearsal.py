"""What would happen if a dead letter were redriven: its consumer's own handler, over a log that keeps nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sparring.artifacts import ArtifactStore, open_store
from sparring.binding import Handlers, obey
from sparring.catalogue import services
from sparring.contracts.base import Fact, Order
from sparring.decider import Append, Context, Recorded, Send
from sparring.dispatch import KEPT
from sparring.entity_store import Because, EntityStore
from sparring.envelope import check_expiry, decode, derived_id, read_envelope, recorded
from sparring.errors import BadInput, ReadModelBehind
from sparring.log.interface import Log, Outgoing, Raw, check_guards
from sparring.questions import context_of
from sparring.reader import Reader
from sparring.service import Service
from sparring.streams import DLQ

SOURCE = "rehearsal"


@dataclass
class Rehearsed:
    """`facts` would be appended, `orders` sent; `error` is what the handler would raise, '' when it succeeds."""

    letter: str
    facts: list[Fact] = field(default_factory=list)
    orders: list[Order] = field(default_factory=list)
    error: str = ""
    done_before: bool = False

    @property
    def outcome(self) -> str:
        if self.error:
            return "fails again"
        if self.done_before:
            return "was done before: nothing more would happen"
        return "recovers" if self.facts or self.orders else "recovers: nothing is left to do"


class ScratchLog:
    """Reads the real log; what is appended goes nowhere."""

    def __init__(self, log: Log) -> None:
        self._log, self._more = log, 0

    async def append(self, batch: Sequence[Outgoing], batch_id: str) -> list[int]:  # noqa: ARG002
        check_guards(batch)
        first = await self._log.end() + self._more + 1
        self._more += len(batch)
        return list(range(first, first + len(batch)))

    async def load(self, pattern: str, after: int = 0) -> list[Raw]:
        return await self._log.load(pattern, after)

    async def last(self, pattern: str) -> int:
        return await self._log.last(pattern)

    async def end(self) -> int:
        return await self._log.end()

    def follow(self, after: int, filters: Sequence[str] = ()) -> Any:
        return self._log.follow(after, filters)


class Behind:
    """What handlers may ask of their shell, as of the reader's moment."""

    def __init__(self, context: Context, artifacts: ArtifactStore) -> None:
        self._context, self.artifacts = context, artifacts
        self.hearing = self

    def context(self) -> Context:
        return self._context

    async def reached(self, sequence: int) -> None:
        if sequence > self._context.read_to:
            raise ReadModelBehind(f"read up to {self._context.read_to}, the fact is {sequence}")


def consumers_service(consumer: str) -> Service:
    """The service that pulls from the consumer. Raises BadInput when it is not installed here."""
    found = next((one for one in services() if consumer in {durable.name for durable in one.durables()}), None)
    if found is None:
        raise BadInput(
            f"CONSUMER = {consumer!r}: no service that is installed here pulls from it; install that service"
        )
    return found


async def rehearse(
    reader: Reader, letter: Mapping[str, Any], *, artifacts: str = "nats://ARTIFACTS", force: bool = False
) -> Rehearsed:
    """Runs the handler of this very build; nothing is appended and nothing is sent.

    `letter` is a row of `health_letters`; `force` obeys an order that has expired. Raises BadInput when the consumer's
    service is not installed here.
    """
    service = consumers_service(letter["consumer"])
    told = Rehearsed(letter["letter"])
    subject, headers, body = await original(reader, letter)
    context = await context_of(reader, service)
    behind = Behind(context, await open_store(artifacts, reader.nc.jetstream(timeout=5)))
    store = EntityStore(ScratchLog(reader.log))
    handlers = Handlers(service)
    envelope = read_envelope(headers, context.now)
    try:
        message = decode(subject, headers, body)
        if isinstance(message, Order):
            if not force:
                check_expiry(envelope, context.now)
            outcome = await obey(store, handlers.command(message), message, envelope, behind, SOURCE)
            told.done_before = outcome.repeated
            told.facts = [] if outcome.repeated else [one.fact for one in outcome.facts]
        elif isinstance(message, Fact):
            fact = recorded(int(letter["stream_sequence"]), subject, headers, body, context.now)
            await _react(handlers, fact, context, store, told)
    except Exception as error:  # noqa: BLE001  whatever the handler raises is the answer
        told.error = f"{type(error).__name__}: {error}"
    return told


async def _react(handlers: Handlers, fact: Recorded, context: Context, store: EntityStore, told: Rehearsed) -> None:
    for number, action in enumerate(handlers.reaction(fact.fact).react(fact, context)):
        if isinstance(action, Send):
            told.orders.append(action.order)
        elif isinstance(action, Append):
            because = Because(source=SOURCE, now=context.now, id=derived_id(SOURCE, told.letter, str(number)))
            outcome = await store.execute(action.entities, action.decide, because)
            told.facts += [one.fact for one in outcome.facts]


async def original(reader: Reader, letter: Mapping[str, Any]) -> tuple[str, dict[str, str], bytes]:
    """Subject, headers and body of the message that was given up, as the DLQ keeps it."""
    place = f"dlq.{letter['consumer']}.{letter['stream']}.{letter['stream_sequence']}"
    kept = await reader.nc.jetstream(timeout=5).get_last_msg(DLQ, place)
    headers = {name.removeprefix(KEPT): value for name, value in (kept.headers or {}).items() if name.startswith(KEPT)}
    return str((kept.headers or {}).get("Sparring-Subject", letter["subject"])), headers, kept.data or b""
