"""What a stored log proves about its guards: every message was appended on the sequence that its decision had read."""

from __future__ import annotations

from collections.abc import Iterable

from sparring.log.interface import Log, Raw, entity_pattern, until

SEQUENCE, PATTERN = "Nats-Expected-Last-Subject-Sequence", "Nats-Expected-Last-Subject-Sequence-Subject"
BATCH = "Nats-Batch-Id"


class GuardCheck:
    """Reads a log once, in order: the server keeps the expectation that it checked in the message's own headers.

    `take` returns what is wrong with a batch, as sentences that begin with the message's sequence; it keeps one number per
    entity, so that a log of any length passes.

    An expected sequence older than the first message that was read can't be compared: after a purge it points into the
    archive. Everything else is: an append that was let through although its entity had moved on is a lost update, as
    overlapping patterns on a replicated stream produce them.
    """

    def __init__(self) -> None:
        self.position = 0
        self._first = 0
        self._last: dict[str, int] = {}
        self._batch, self._seen_in_batch = "", set[str]()

    def take(self, batch: Iterable[Raw]) -> list[str]:
        """What is wrong in the batch; it continues where the last one ended."""
        found: list[str] = []
        for raw in batch:
            wrong = self._wrong(raw)
            if wrong:
                found.append(f"{raw.sequence}: {raw.subject} {wrong}")
        return found

    def _wrong(self, raw: Raw) -> str:
        self._first = self._first or raw.sequence
        self.position = raw.sequence
        pattern = entity_pattern(raw.subject)
        follows = self._follows_in_batch(raw, pattern)
        before = self._last.get(pattern, 0)
        self._last[pattern] = raw.sequence
        expected, over = raw.headers.get(SEQUENCE), raw.headers.get(PATTERN)
        if follows:
            return "" if expected is None else "expects a sequence of an entity that its own batch has moved"
        if expected is None:
            return f"was appended without an expected sequence; it must be over {pattern}"
        if over != pattern:
            return f"expects a sequence over {over}; it must be over {pattern}"
        if int(expected) != before and (before or not 0 < int(expected) < self._first):
            return f"was let through on sequence {expected}, but its entity stood at {before}: an update was lost"
        return ""

    def _follows_in_batch(self, raw: Raw, pattern: str) -> bool:
        """Whether an earlier message of the same batch carried this entity's expectation."""
        batch = raw.headers.get(BATCH, "")
        if not batch or batch != self._batch:
            self._batch, self._seen_in_batch = batch, set()
        follows = pattern in self._seen_in_batch
        if batch:
            self._seen_in_batch.add(pattern)
        return follows


async def unguarded(log: Log) -> list[str]:
    """What is wrong with the guards of a whole log, up to its present end: `spar doctor --log` prints these sentences.

    Only a log whose messages still have their stored headers can be checked: the stream, or its archive as raw messages.
    """
    check, found = GuardCheck(), list[str]()
    async for batch in until(log, await log.end()):
        found += check.take(batch)
    return found
