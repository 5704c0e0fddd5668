"""Brings files of read models up to a sequence by reading the log once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing, suppress
from datetime import datetime

from sparring.log.interface import Log, Raw
from sparring.projection import Projection


async def _ahead(feed: AsyncIterator[list[Raw]]) -> AsyncIterator[list[Raw]]:
    """The next batch is read while the last one is applied."""
    reading = asyncio.ensure_future(anext(feed, None))
    try:
        while (batch := await reading) is not None:
            reading = asyncio.ensure_future(anext(feed, None))
            yield batch
    finally:
        reading.cancel()
        with suppress(asyncio.CancelledError):
            await reading


async def fold(
    log: Log, parts: Sequence[tuple[Projection, int]], *, progress: Callable[[int], None] | None = None
) -> datetime | None:
    """Each projection is brought to its own sequence; returns the moment of the last fact that was read.

    What a projection has is skipped, so that parts may start at different sequences.
    """
    behind = [(one, target) for one, target in parts if one.position < target]
    if not behind:
        return None
    last: datetime | None = None
    end = max(target for _, target in behind)
    feed = log.follow(min(one.position for one, _ in behind))
    async with aclosing(feed), aclosing(_ahead(feed)) as batches:  # type: ignore[type-var]
        async for batch in batches:
            if not batch:
                continue
            read = batch[-1].sequence
            for one, target in behind:
                fresh = [raw for raw in batch if raw.sequence <= target] if read > target else batch
                await asyncio.to_thread(one.apply, fresh, up_to=target if read >= target else None)
            last = next((raw.at for raw in reversed(batch) if raw.sequence <= end), last)
            if progress is not None:
                progress(min(read, end))
            if read >= end:
                return last
    # a log in a file ends; what a filtered one lacks up to the target is nothing
    for one, target in behind:
        await asyncio.to_thread(one.apply, [], up_to=target)
    return last
