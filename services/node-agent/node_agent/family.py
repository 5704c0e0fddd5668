"""All processes of a task, wherever they went: its group, its descendants, and whoever carries its mark."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from pathlib import Path

import psutil

MARK = "SPARRING_TASK_MARK"
PATIENCE_S = 5.0


def machine_boot() -> str:
    """Names the machine's present boot: process ids and start times mean nothing beyond it; '' where unknown."""
    known = Path("/proc/sys/kernel/random/boot_id")
    return known.read_text().strip() if known.exists() else ""


def started_at(pid: int) -> float | None:
    """When the process started, in seconds since the epoch; None when it is gone."""
    with contextlib.suppress(psutil.Error):
        return psutil.Process(pid).create_time()
    return None


def members(mark: str, leader: int | None = None) -> set[int]:
    """Process ids of the family: those in the leader's group or below it, and those that inherited the mark."""
    wanted, own = f"{MARK}={mark}".encode(), os.getpid()
    found = {one for one in psutil.pids() if one != own and (_in_group(one, leader) or _carries(one, wanted))}
    if leader is not None:
        with contextlib.suppress(psutil.Error):
            found |= {one.pid for one in psutil.Process(leader).children(recursive=True)}
    return {one for one in found if _lives(one)}


def _in_group(pid: int, leader: int | None) -> bool:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        return leader is not None and os.getpgid(pid) == leader
    return False


def _carries(pid: int, wanted: bytes) -> bool:
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            return wanted in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        return False
    with contextlib.suppress(psutil.Error):
        return psutil.Process(pid).environ().get(MARK, "").encode() == wanted.partition(b"=")[2]
    return False


def _lives(pid: int) -> bool:
    with contextlib.suppress(psutil.Error):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def end(mark: str, leader: int | None = None) -> bool:
    """SIGKILL to the whole family, again until nobody is left: a fork may be faster than a list. Blocks; for threads.

    Returns whether all are gone within five seconds.
    """
    until = time.monotonic() + PATIENCE_S
    while left := members(mark, leader):
        for pid in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > until:
            return False
        time.sleep(0.01)
    return True


def end_leftovers(mark: str, boot: str, leader: int | None, started: float | None) -> bool:
    """Ends what an earlier life of the agent left. The group counts only when its leader is still the same process.

    Returns whether there was something to end.
    """
    if boot != machine_boot():
        return False
    now = started_at(leader) if leader is not None else None
    same = now is None or (started is not None and abs(now - started) < 1.0)
    leader = leader if same else None
    if not members(mark, leader):
        return False
    return end(mark, leader)
