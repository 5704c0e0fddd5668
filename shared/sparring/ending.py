"""Ends tasks for certain.

Up to Python 3.11 `asyncio.wait_for` drops a cancellation that comes together with what it waits for; nats-py waits with it.
A loop that is cancelled once may therefore go on for ever, and whoever waits for its end with it.
"""

from __future__ import annotations

import asyncio
from typing import Any

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
