"""The log in memory: for the simulator and for tests of rules."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime

from sparring.errors import LostRace, RepeatedBatch
from sparring.log.interface import Outgoing, Raw, check_guards, entity_pattern


def _now() -> datetime:
    return datetime.now(UTC)


def matches(pattern: str, subject: str) -> bool:
    """Whether a NATS subject filter hears the subject."""
    wanted, tokens = pattern.split("."), subject.split(".")
    for number, part in enumerate(wanted):
        if part == ">":
            return len(tokens) > number
        if number >= len(tokens) or part not in ("*", tokens[number]):
            return False
    return len(wanted) == len(tokens)


class MemoryLog:
    """Behaves as the JetStream home does, deduplication by message id included."""

    def __init__(self, clock: Callable[[], datetime] = _now) -> None:
        self._clock = clock
        self._messages: list[Raw] = []
        self._by_entity: dict[str, list[Raw]] = {}
        self._ids: set[str] = set()
        self._moved = asyncio.Event()

    async def append(self, batch: Sequence[Outgoing], batch_id: str) -> list[int]:
        return self.append_now(batch, batch_id)

    def append_now(self, batch: Sequence[Outgoing], batch_id: str) -> list[int]:
        """As `append`, without waiting: the simulator calls this."""
        check_guards(batch)
        ids = {message.headers["Nats-Msg-Id"] for message in batch if "Nats-Msg-Id" in message.headers}
        if len(batch) > 1:
            ids.add(f"batch {batch_id}")
        if ids & self._ids:
            raise RepeatedBatch(f"batch {batch_id} or one of its messages was appended before")
        for message in batch:
            if message.expect is not None:
                found = self._last(message.expect.pattern)
                if found != message.expect.sequence:
                    raise LostRace(message.expect.pattern, message.expect.sequence)
        self._ids |= ids
        at = self._clock()
        return [self._add(message, at) for message in batch]

    def _add(self, message: Outgoing, at: datetime) -> int:
        raw = Raw(len(self._messages) + 1, at, message.subject, dict(message.headers), message.body)
        self._messages.append(raw)
        self._by_entity.setdefault(entity_pattern(message.subject), []).append(raw)
        self._moved.set()
        self._moved = asyncio.Event()
        return raw.sequence

    def _last(self, pattern: str) -> int:
        if pattern in self._by_entity:
            return self._by_entity[pattern][-1].sequence
        return next((raw.sequence for raw in reversed(self._messages) if matches(pattern, raw.subject)), 0)

    async def load(self, pattern: str, after: int = 0) -> list[Raw]:
        known = self._by_entity.get(pattern)
        if known is None:
            known = [raw for raw in self._messages if matches(pattern, raw.subject)]
        return [raw for raw in known if raw.sequence > after]

    async def last(self, pattern: str) -> int:
        return self._last(pattern)

    async def end(self) -> int:
        return len(self._messages)

    async def follow(self, after: int, filters: Sequence[str] = ()) -> AsyncIterator[list[Raw]]:
        position = after
        while True:
            moved = self._moved
            fresh = self._messages[position:]
            if not fresh:
                await moved.wait()
                continue
            position = fresh[-1].sequence
            yield [raw for raw in fresh if not filters or any(matches(one, raw.subject) for one in filters)]
