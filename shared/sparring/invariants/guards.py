"""Whether every message of the log was appended under its entity's guard."""

from __future__ import annotations

from collections.abc import Iterator

from sparring.log.interface import Raw, entity_pattern

PATTERN, EXPECTED = "Nats-Expected-Last-Subject-Sequence-Subject", "Nats-Expected-Last-Subject-Sequence"


class AppendsAreGuarded:
    """Each append expected the sequence of its entity's last message, over the entity's one canonical pattern.

    In an atomic batch the first message of each entity carries the expectation. A log that was purged up to `after` has
    entities whose last message is gone: an expectation at or below `after` is believed.
    """

    name = "AppendsAreGuarded"

    def __init__(self, after: int = 0) -> None:
        self._after = after
        self._last: dict[int, int] = {}
        self._batch, self._in_batch = "", set[str]()

    def apply(self, raw: Raw) -> Iterator[str]:
        """Takes in the next message of the log; says what was wrong with its append."""
        pattern = entity_pattern(raw.subject)
        entity = hash(pattern)
        found, expected = raw.headers.get(PATTERN), int(raw.headers.get(EXPECTED, "-1"))
        if self._guards(raw, pattern):
            last = self._last.get(entity)
            if found != pattern:
                yield f"{raw.sequence}: {raw.subject} expected a sequence over {found}, not over {pattern}"
            elif expected != (last or 0) and not (last is None and 0 <= expected <= self._after):
                yield f"{raw.sequence}: {raw.subject} expected {expected}, the last of {pattern} was {last or 0}"
        elif found is not None:
            yield f"{raw.sequence}: {raw.subject} expects a sequence a second time in its batch, over {found}"
        self._last[entity] = raw.sequence

    def _guards(self, raw: Raw, pattern: str) -> bool:
        """Whether this message must carry the entity's expectation: alone, or first of its entity in a batch."""
        batch = raw.headers.get("Nats-Batch-Id", "")
        if not batch:
            return True
        if batch != self._batch:
            self._batch, self._in_batch = batch, set()
        first = pattern not in self._in_batch
        self._in_batch.add(pattern)
        return first
