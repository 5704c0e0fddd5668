"""Points at which a test can kill or stop the process: armed by an environment variable that nothing but tests sets."""

from __future__ import annotations

import os
import signal
from typing import Literal

Point = Literal[
    "loaded", "decided", "appended", "reacted", "published", "acked", "projected", "carried", "stored", "recorded"
]

_armed = os.environ.get("SPARRING_TEST_FAULT", "")
_passed: dict[str, int] = {}


def arm(text: str) -> None:
    """`<point>`, `<point>:<n>` or `<point>:<n>:stop`: this process dies, or is stopped, at the n-th passage; '' disarms.

    Only tests call this. A stopped process goes on where it was when it gets SIGCONT.
    """
    global _armed
    _armed = text
    _passed.clear()


def fault(point: Point) -> None:
    """Ends or stops this very process by a signal when a test armed the point; free otherwise."""
    if not _armed:
        return
    wanted, nth, how = [*_armed.split(":"), "", ""][:3]
    _passed[point] = _passed.get(point, 0) + 1
    if point == wanted and _passed[point] == int(nth or "1"):
        os.kill(os.getpid(), signal.SIGSTOP if how == "stop" else signal.SIGKILL)
