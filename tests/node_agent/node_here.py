"""What a task needs of its agent, in the test's own process: a spool that takes what there is room for, no server."""

from __future__ import annotations

import asyncio
import errno
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import structlog
from agent_node import GOOD

from node_agent.custody import Custody
from node_agent.limits import Cgroups, Places
from node_agent.roster import Roster
from node_agent.settings import parse
from sparring.contracts.node_agent import StartTask
from sparring.contracts.parts import TaskSpec


def full(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


class Spool:
    """Takes what is put while `room` says so; everything is seen at once."""

    def __init__(self) -> None:
        self.said, self.room = list[Any](), lambda order: True

    def put(self, order: Any, **_: Any) -> asyncio.Event:
        if not self.room(order):
            full()
        self.said.append(order)
        seen = asyncio.Event()
        seen.set()
        return seen


def node(folder: Path) -> Any:
    """What a task needs of its agent."""
    log, spool = structlog.get_logger(), Spool()
    settings = parse(["--node", "n1", "--nice", "0", "--data", str(folder)], {})
    agent: Any = SimpleNamespace(
        settings=settings, folder=folder, boot="b", draining=False, log=log, spool=spool, cgroups=Cgroups(None, "n1"),
        running=Roster(folder / "tasks"), places=Places((0,), 0), beats=SimpleNamespace(progressed=lambda *_: None),
        custody=Custody(folder / "games", "n1", None, spool, log), nc=None,  # type: ignore[arg-type]
    )  # fmt: skip
    return agent


def task(folder: Path, program: str = GOOD, kind: str = "selfplay", **more: Any) -> StartTask:
    file = folder / "program.py"
    file.write_text(program)
    spec = TaskSpec(kind=kind, lane="hex", seed=1, argv=("python", str(file), "{job}", "{out}"), timeout_s=60, **more)
    return StartTask(node="n1", boot="b", task="t", attempt=1, spec=spec)
