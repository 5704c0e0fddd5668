"""What every home of the log promises."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Protocol


@dataclass(frozen=True, slots=True)
class Expect:
    """The append is refused unless the last message on `pattern` has this sequence (0: there is none)."""

    pattern: str
    sequence: int


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message to append; the first message of each entity in a batch carries that entity's expectation."""

    subject: str
    headers: Mapping[str, str]
    body: bytes
    expect: Expect | None = None


class Raw(NamedTuple):
    """A message of the log, undecoded. A tuple: a replay makes millions of them."""

    sequence: int
    at: datetime
    subject: str
    headers: Mapping[str, str]
    body: bytes


class Unguarded(ValueError):
    """An append that expects no sequence over the entity's one canonical pattern would lose updates."""


def check_guards(batch: Sequence[Outgoing]) -> None:
    """The first message of each entity expects a sequence over exactly that entity's pattern, and no other does.

    Raises Unguarded: anything else loses updates on a replicated stream.
    """
    seen: set[str] = set()
    for message in batch:
        pattern = entity_pattern(message.subject)
        wanted = None if pattern in seen else pattern
        found = message.expect.pattern if message.expect is not None else None
        if found != wanted:
            raise Unguarded(f"{message.subject} expects a sequence over {found}, it must be over {wanted}")
        seen.add(pattern)


def entity_pattern(subject: str) -> str:
    """`evt.<owner>.<entity>.<id>.>` of a fact's subject."""
    return subject.rsplit(".", 1)[0] + ".>"


async def until(log: Log, end: int, after: int = 0) -> AsyncGenerator[list[Raw], None]:
    """What lies past `after` up to `end`, in batches that need not be held together."""
    if after >= end:
        return
    feed = log.follow(after)
    try:
        async for batch in feed:
            yield [raw for raw in batch if raw.sequence <= end]
            if batch and batch[-1].sequence >= end:
                return
    finally:
        await feed.aclose()  # type: ignore[attr-defined]


class Log(Protocol):
    """Append with expectation, load one entity, follow everything."""

    async def append(self, batch: Sequence[Outgoing], batch_id: str) -> list[int]:
        """All or nothing; returns the sequences.

        Raises Unguarded when a message lacks its entity's expectation, LostRace when an expectation fails, RepeatedBatch when the id or a message's id was used before, and
        LogUnavailable when no answer came: then the append may have happened.
        """
        ...

    async def load(self, pattern: str, after: int = 0) -> list[Raw]:
        """All messages on the pattern past `after`, in order; possibly from a replica that lags."""
        ...

    async def last(self, pattern: str) -> int:
        """The last sequence on the pattern, from the leader; 0 when there is none."""
        ...

    async def end(self) -> int:
        """The last sequence of the log, from the leader."""
        ...

    def follow(self, after: int, filters: Sequence[str] = ()) -> AsyncIterator[list[Raw]]:
        """Everything past `after` in order, without gaps or doubles, in batches, for ever; empty batches are beats."""
        ...
