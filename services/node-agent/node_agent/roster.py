"""What runs on this node, written down so that the agent's next life can end it and say so."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from collections.abc import Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from node_agent import family
from node_agent.child import Child, TaskFailure
from sparring.contracts.node_agent import StartTask
from sparring.ending import CalledOff, unless

T = TypeVar("T")


@dataclass
class Running:
    """A task on this node, listed in every beat until its outcome is seen.

    `cancelled` says why it is to stop. `asked` is set with it: nothing that is not there yet is waited for. `over` is set
    when there is no time left for what is there. `traceparent` is the order's.
    """

    order: StartTask
    traceparent: str = ""
    began: float = field(default_factory=time.monotonic)
    child: Child | None = None
    done: float = 0.0
    of: float = 0.0
    told_at: float = 0.0
    cancelled: str = ""
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def stop(self, reason: str) -> None:
        self.cancelled = reason
        self.asked.set()

    async def unless(self, event: asyncio.Event, doing: Coroutine[Any, Any, T]) -> T:
        """What it returns. Raises TaskFailure when the event, `asked` or `over`, comes first: then nothing of it goes on."""
        try:
            return await unless(event, doing)
        except CalledOff as error:
            raise TaskFailure(self.cancelled) from error

    @property
    def key(self) -> str:
        return f"{self.order.task}-{self.order.attempt}"

    @property
    def mark(self) -> str:
        return f"{self.order.boot}/{self.key}"


@dataclass(frozen=True)
class Left:
    """A task that an earlier life of this agent began and did not bring to an end; `ran` says that it still ran."""

    task: str
    attempt: int
    ran: bool


class Roster(dict[str, Running]):
    """Running tasks by key, mirrored in a folder: one file each, gone with the task."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    def note(self, running: Running) -> None:
        """Writes it down. Raises OSError, and leaves what stood there, when the disk is full."""
        self._folder.mkdir(exist_ok=True)
        pid = running.child.pid if running.child else None
        order = running.order
        record = {"task": order.task, "attempt": order.attempt, "mark": running.mark, "pid": pid,
                  "machine_boot": family.machine_boot(),
                  "started": family.started_at(pid) if pid else None}  # fmt: skip
        draft = self._folder / f".{running.key}.tmp"
        try:
            draft.write_text(json.dumps(record))
            os.replace(draft, self._folder / f"{running.key}.json")
        except OSError:
            draft.unlink(missing_ok=True)
            raise

    def forget(self, running: Running) -> None:
        self.pop(running.key, None)
        (self._folder / f"{running.key}.json").unlink(missing_ok=True)

    def leftovers(self) -> list[tuple[Path, Left]]:
        """Ends what an earlier life left running, found by machine boot, process id and start time, and by its mark.

        Blocks; for threads. A file goes once its task's outcome is on disk: the caller unlinks it.
        """
        found = []
        for file in sorted(self._folder.glob("*.json")):
            with contextlib.suppress(ValueError, KeyError):
                told: dict[str, Any] = json.loads(file.read_text())
                ran = family.end_leftovers(told["mark"], told["machine_boot"], told["pid"], told["started"])
                found.append((file, Left(told["task"], told["attempt"], ran)))
        return found
