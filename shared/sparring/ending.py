"""Ends tasks for certain, and waits that something else may end.

Up to Python 3.11 `asyncio.wait_for` drops a cancellation that comes together with what it waits for; nats-py waits with it.
A loop that is cancelled once may therefore go on for ever, and whoever waits for its end with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")
# what a task does on its way out, such as taking leave of a server, is done by then
AGAIN_S = 2.0


async def ended(*tasks: asyncio.Task[Any], again_s: float = AGAIN_S) -> None:
    """Cancels them, again and again, and returns once all have ended, in whatever way."""
    rest = set(tasks)
    while rest := {one for one in rest if not one.done()}:
        for one in rest:
            one.cancel()
        await asyncio.wait(rest, timeout=again_s)
    # what they raised is nobody's concern any more
    await asyncio.gather(*tasks, return_exceptions=True)


class CalledOff(Exception):
    """The event came before the result."""


async def unless(event: asyncio.Event, doing: Coroutine[Any, Any, T]) -> T:
    """What it returns. Raises CalledOff when the event comes first: then nothing of it goes on."""
    work, told = asyncio.create_task(doing), asyncio.create_task(event.wait())
    try:
        await asyncio.wait((work, told), return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            raise CalledOff
        return work.result()
    finally:
        await ended(work, told)


async def comes(event: asyncio.Event, within_s: float) -> bool:
    """Whether the event is there before so many seconds are over; returns as soon as it is."""
    try:
        async with asyncio.timeout(within_s):
            await event.wait()
    except TimeoutError:
        return False
    return True
