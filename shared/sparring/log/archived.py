"""Archive and stream as one log: what was purged is read from its segments, what follows from the stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing
from datetime import datetime

from nats.aio.client import Client

from sparring.artifacts import open_store
from sparring.contracts.archivist import LogArchived, Segment
from sparring.envelope import recorded
from sparring.errors import ArtifactMissing, HashMismatch, LogUnavailable
from sparring.log.interface import Outgoing, Raw
from sparring.log.jetstream import JetStreamLog
from sparring.log.memory import matches
from sparring.log.slice import SliceLog
from sparring.place import cache_folder
from sparring.subjects import Ref

ARCHIVE = Ref("archivist", "log", "main")


async def archived(stream: JetStreamLog) -> LogArchived | None:
    """What was archived so far; None before the first time."""
    raws = await stream.load(ARCHIVE.pattern)
    found = [raw for raw in raws if raw.subject.endswith(".LogArchived")]
    if not found:
        return None
    last = found[-1]
    fact = recorded(last.sequence, last.subject, last.headers, last.body, last.at).fact
    assert isinstance(fact, LogArchived)
    return fact


class ArchivedLog:
    """The whole log. Appends and the owners' loads stay with the stream: an open entity's state was carried there."""

    def __init__(self, nc: Client) -> None:
        self._nc, self.stream = nc, JetStreamLog(nc)

    async def _segments(self, after: int) -> list[Segment]:
        """Those with facts past the sequence. Raises LogUnavailable when facts are neither here nor there."""
        told = await archived(self.stream)
        through = told.through if told is not None else 0
        purged = await self.stream.begin()
        if max(after, through) < purged:
            raise LogUnavailable(
                f"facts {max(after, through) + 1} to {purged} are neither in the stream nor in the archive; "
                "somebody purged EVENTS by hand: restore the server's store from a backup"
            )
        return [one for one in told.segments if one.last > after] if told is not None else []

    async def _file(self, segment: Segment) -> SliceLog:
        """Raises LogUnavailable when the store lacks it: once it is restored, reading goes on."""
        path = cache_folder() / "segments" / f"{segment.sha256}.parquet"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            home = segment.url.rpartition("/")[0]
            try:
                await (await open_store(home, self._nc.jetstream(timeout=10))).get(segment.url, path)
            except (ArtifactMissing, HashMismatch) as error:
                raise LogUnavailable(
                    f"facts {segment.first} to {segment.last} were archived, and their segment can't be read: {error}; "
                    "restore the artifact store from a backup"
                ) from error
        return await asyncio.to_thread(SliceLog, path)

    async def follow(self, after: int, filters: Sequence[str] = ()) -> AsyncIterator[list[Raw]]:
        """Raises LogUnavailable when facts are nowhere, or while nobody knows where they are.

        Filters are applied here: only who hears every sequence notices that some were purged before it came to them.
        """
        while True:
            for segment in await self._segments(after):
                file = await self._file(segment)
                batches = file.raws(after)
                while batch := await asyncio.to_thread(next, batches, None):
                    yield _heard(batch, filters)
                after = max(after, segment.last)
            async with aclosing(self.stream.follow(after)) as feed:  # type: ignore[type-var]
                async for batch in feed:
                    if batch and batch[-1].sequence - after != len(batch):
                        break
                    after = batch[-1].sequence if batch else after
                    yield _heard(batch, filters)
                else:
                    return
            # a purge alone takes facts out of the stream: they lie in a segment by now
            if await self.stream.begin() <= after:
                raise LogUnavailable(
                    f"the stream lacks facts past {after} that nobody purged: restore it from a backup"
                )

    async def append(self, batch: Sequence[Outgoing], batch_id: str) -> list[int]:
        return await self.stream.append(batch, batch_id)

    async def load(self, pattern: str, after: int = 0) -> list[Raw]:
        found: list[Raw] = []
        while True:
            for segment in await self._segments(after):
                file = await self._file(segment)
                found += await asyncio.to_thread(_matching, file.raws(after), pattern)
                after = max(after, segment.last)
            rest = await self.stream.load(pattern, after)
            # what was purged meanwhile lies in a segment by now
            if await self.stream.begin() <= after:
                return found + rest

    async def last(self, pattern: str) -> int:
        here = await self.stream.last(pattern)
        if here:
            return here
        found = await self.load(pattern)
        return found[-1].sequence if found else 0

    async def end(self) -> int:
        return await self.stream.end()

    async def get(self, sequence: int) -> Raw | None:
        """The first message at or after the sequence."""
        here = await self.stream.get(sequence)
        if here is not None and here.sequence == sequence:
            return here
        for segment in await self._segments(sequence - 1):
            raw = await (await self._file(segment)).get(sequence)
            if raw is not None:
                return raw
        return here

    async def first_since(self, moment: datetime) -> int | None:
        """The sequence of the first message stored at or after the moment."""
        while True:
            segments = await self._segments(0)
            for segment in segments:
                found = await (await self._file(segment)).first_since(moment)
                if found is not None:
                    return found
            found = await self.stream.first_since(moment)
            if await self.stream.begin() <= max((one.last for one in segments), default=0):
                return found


def _heard(batch: list[Raw], filters: Sequence[str]) -> list[Raw]:
    return [raw for raw in batch if any(matches(one, raw.subject) for one in filters)] if filters else batch


def _matching(batches: Iterator[list[Raw]], pattern: str) -> list[Raw]:
    return [raw for batch in batches for raw in batch if matches(pattern, raw.subject)]
