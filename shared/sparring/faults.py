"""Points at which a test can kill the process: armed by an environment variable that nothing but tests sets."""

from __future__ import annotations

import os
import signal
from typing import Literal

Point = Literal["loaded", "decided", "appended", "reacted", "published", "acked", "projected"]

# "<point>" or "<point>:<n>": dies at the n-th passage
_ARMED = os.environ.get("SPARRING_TEST_FAULT", "")
_passed: dict[str, int] = {}


def fault(point: Point) -> None:
    """Kills this very process with SIGKILL when a test armed the point; free otherwise."""
    if not _ARMED:
        return
    wanted, _, nth = _ARMED.partition(":")
    _passed[point] = _passed.get(point, 0) + 1
    if point == wanted and _passed[point] == int(nth or "1"):
        os.kill(os.getpid(), signal.SIGKILL)
