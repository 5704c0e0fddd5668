"""What a task may use: memory by a cgroup of its own where one can be made, else by rlimit; cores and cards by pinning."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import glob
import os
import random
import resource
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

PDEATHSIG = 1
# the kernel takes one such write in .1 s from all who are no administrators
RANK_PAUSE_S = (0.1, 0.3)
GONE_S = 5.0


@dataclass(frozen=True)
class Limits:
    """`cores` and `cards` are indices; () leaves all cores, None all cards, () hides every card."""

    nice: int = 0
    memory_bytes: int = 0
    cores: tuple[int, ...] = ()
    cards: tuple[int, ...] | None = None
    cgroup: Path | None = None

    @property
    def memory_by(self) -> str:
        return "cgroup" if self.cgroup is not None else "rlimit"

    @property
    def environ(self) -> dict[str, str]:
        return {} if self.cards is None else {"CUDA_VISIBLE_DEVICES": ",".join(str(one) for one in self.cards)}

    def before_exec(self) -> Callable[[], None]:
        """Runs in the child between fork and exec."""
        libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None

        def prepare() -> None:
            if libc is not None:
                # an agent that is killed takes its programs along
                libc.prctl(PDEATHSIG, signal.SIGKILL)
            if self.cgroup is not None:
                (self.cgroup / "cgroup.procs").write_text(str(os.getpid()))
            elif self.memory_bytes:
                resource.setrlimit(resource.RLIMIT_DATA, (self.memory_bytes, self.memory_bytes))
            if self.cores and hasattr(os, "sched_setaffinity"):
                os.sched_setaffinity(0, self.cores)
            os.nice(self.nice)

        return prepare

    def exceeded(self) -> bool:
        """Whether the kernel killed a process of the cgroup for its memory."""
        if self.cgroup is None:
            return False
        with contextlib.suppress(OSError, ValueError):
            counts = dict(line.split() for line in (self.cgroup / "memory.events").read_text().splitlines())
            return int(counts.get("oom_kill", 0)) > 0
        return False


async def rank(pid: int) -> None:
    """Gives the session that the process leads the niceness of the process.

    Where Linux shares cores by session (autogroup, on by default), a process's own counts only among those of its session.
    """
    # an OSError: it has ended, or this kernel knows no such groups
    with contextlib.suppress(OSError):
        nice = os.getpriority(os.PRIO_PROCESS, pid)
        while nice:
            with contextlib.suppress(BlockingIOError):
                Path(f"/proc/{pid}/autogroup").write_text(str(nice))
                return
            await asyncio.sleep(random.uniform(*RANK_PAUSE_S))


class Cgroups:
    """Cgroups v2 under a folder that was delegated to the agent (`--cgroup`, systemd's Delegate=memory).

    They carry the node's name: another node's agent may have its own in the same folder.
    """

    def __init__(self, parent: Path | None, node: str) -> None:
        self._parent, self._node = parent, node
        self.usable = parent is not None and self._prepared(parent)

    def _prepared(self, parent: Path) -> bool:
        try:
            if "memory" not in (parent / "cgroup.controllers").read_text().split():
                return False
            (parent / "cgroup.subtree_control").write_text("+memory")
        except OSError:
            return False
        return True

    def make(self, name: str, memory_bytes: int) -> Path | None:
        """A cgroup with that memory and no swap; None where there can be none."""
        if not self.usable or self._parent is None or not memory_bytes:
            return None
        folder = self._parent / f"{self._node}.{name}"
        try:
            folder.mkdir(exist_ok=True)
            (folder / "memory.max").write_text(str(memory_bytes))
            with contextlib.suppress(OSError):
                # a machine without swap has no such file
                (folder / "memory.swap.max").write_text("0")
        except OSError:
            return None
        return folder

    def drop(self, folder: Path) -> bool:
        """Ends whatever is in the cgroup, and removes it. Blocks; for threads. Returns whether it is gone."""
        until = time.monotonic() + GONE_S
        while folder.exists():
            with contextlib.suppress(OSError):
                (folder / "cgroup.kill").write_text("1")
            # a process that was killed is in its cgroup until it has ended
            with contextlib.suppress(OSError):
                folder.rmdir()
                break
            if time.monotonic() > until:
                return False
            time.sleep(0.01)
        return True

    def drop_leftovers(self) -> list[Path]:
        """Ends whoever is in those of this node's earlier lives, and removes them. Blocks; for threads. Returns what stays."""
        found = self._parent.glob(f"{glob.escape(self._node)}.*") if self._parent is not None else ()
        return [one for one in found if (one / "cgroup.procs").exists() and not self.drop(one)]


@dataclass
class Places:
    """Which cores and cards are given to whom; the least used are given next."""

    cores: Sequence[int] = ()
    cards: int = 0
    cores_per_task: int = 0
    _cores: Counter[int] = field(default_factory=Counter)
    _cards: Counter[int] = field(default_factory=Counter)

    @contextmanager
    def taken(self, gpu: bool) -> Iterator[tuple[tuple[int, ...], tuple[int, ...] | None]]:
        """Cores and cards for one task. A machine without cards hides none: what a program finds is its own business."""
        wanted = min(self.cores_per_task, len(self.cores))
        cores = tuple(sorted(sorted(self.cores, key=lambda one: (self._cores[one], one))[:wanted]))
        cards = None if not self.cards else tuple(sorted(range(self.cards), key=self._load)[: 1 if gpu else 0])
        self._cores.update(cores)
        self._cards.update(cards or ())
        try:
            yield cores, cards
        finally:
            self._cores.subtract(cores)
            self._cards.subtract(cards or ())

    def _load(self, card: int) -> tuple[int, int]:
        return self._cards[card], card


def available_cores() -> tuple[int, ...]:
    """The cores that this process may use."""
    return tuple(sorted(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else ()
