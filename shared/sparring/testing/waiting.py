"""Waiting for a fact instead of sleeping."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


async def eventually(
    look: Callable[[], T | Awaitable[T]], *, within_s: float = 20.0, every_s: float = 0.02, what: str = ""
) -> T:
    """The first truthy answer of `look`. Raises AssertionError with its last answer or exception when none comes."""
    end = time.monotonic() + within_s
    last: object = None
    while time.monotonic() < end:
        try:
            answer = look()
            value = await answer if inspect.isawaitable(answer) else answer
            if value:
                return value
            last = value
        except AssertionError as error:
            last = error
        await asyncio.sleep(every_s)
    raise AssertionError(f"not within {within_s:.0f} s{': ' + what if what else ''}; last answer: {last!r}")
