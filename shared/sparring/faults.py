"""Points at which a test can kill the process: armed by an environment variable that nothing but tests sets."""

from __future__ import annotations

import os
import signal
from typing import Literal

Point = Literal["loaded", "decided", "appended", "reacted", "published", "acked", "projected"]

_armed = os.environ.get("SPARRING_TEST_FAULT", "")
_passed: dict[str, int] = {}


def arm(text: str) -> None:
    """`<point>` or `<point>:<n>`: this process dies at the n-th passage; '' disarms. Only tests call this."""
    global _armed
    _armed = text
    _passed.clear()


def fault(point: Point) -> None:
    """Kills this very process with SIGKILL when a test armed the point; free otherwise."""
    if not _armed:
        return
    wanted, _, nth = _armed.partition(":")
    _passed[point] = _passed.get(point, 0) + 1
    if point == wanted and _passed[point] == int(nth or "1"):
        os.kill(os.getpid(), signal.SIGKILL)
