"""A beat is said whatever the machine's drivers do, and a part that ends takes the agent with it, never in silence."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from node_agent import beats
from node_agent.agent import Agent
from node_agent.beats import Beats
from node_agent.machine import Machine
from node_agent.roster import Running
from node_agent.settings import parse
from sparring.contracts.node_agent import StartTask
from sparring.contracts.parts import TaskSpec
from sparring.contracts.readings import Resources
from sparring.testing import eventually


class Slow:
    """A machine whose next reading ends when it is let, or fails."""

    def __init__(self, folder: Path) -> None:
        self._reading = Machine(folder).read()
        self.go, self.fails, self.reads = threading.Event(), False, 0
        self.go.set()

    def read(self) -> Resources:
        self.reads += 1
        self.go.wait(30)
        if self.fails:
            raise ValueError("NVML says something that nobody expected")
        return self._reading


def beating(folder: Path) -> tuple[Beats, Slow, dict[str, Running]]:
    machine, running = Slow(folder), dict[str, Running]()
    agent: Any = SimpleNamespace(
        settings=parse(["--node", "n1"], {}), machine=machine, running=running, custody=SimpleNamespace(batches=list),
        spool=SimpleNamespace(depth=0), gone_at=None, boot="b", draining=False, notice="", log=structlog.get_logger(),
    )  # fmt: skip
    return Beats(agent), machine, running


def task() -> Running:
    spec = TaskSpec(kind="selfplay", lane="hex", seed=1, argv=("true",), timeout_s=60)
    return Running(StartTask(node="n1", boot="b", task="t", attempt=1, spec=spec))


async def test_a_task_that_begins_while_the_machine_is_read_has_run_for_no_less_than_nothing(tmp_path: Path) -> None:
    saying, machine, running = beating(tmp_path)
    machine.go.clear()
    beat = asyncio.create_task(saying.heartbeat())
    await eventually(lambda: machine.reads == 1)
    began = time.monotonic()
    # for_s is rounded to a tenth of a second
    await eventually(lambda: time.monotonic() - began > 0.2)
    running["t-1"] = task()
    machine.go.set()
    assert [one.task for one in (await beat).running] == ["t"]
    running["t-1"].began = time.monotonic() + 5
    assert (await saying.heartbeat()).running[0].for_s == 0


async def test_a_machine_that_cannot_be_read_beats_with_its_last_reading_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(beats, "READ_AGAIN_S", 0.001)
    saying, machine, _ = beating(tmp_path)
    machine.fails = True
    first = asyncio.create_task(saying.heartbeat())
    await eventually(lambda: machine.reads > 2)
    assert not first.done(), "there is nothing to say yet"
    machine.fails = False
    whole = await first
    machine.fails = True
    with capture_logs() as said:
        assert (await saying.heartbeat()).resources == whole.resources
    assert [one["event"] for one in said] == ["the machine could not be read; the last reading stands"]


async def test_an_agent_whose_part_ended_says_so_and_ends(tmp_path: Path) -> None:
    agent = Agent(parse(["--node", "n1", "--data", str(tmp_path)], {}))

    async def ends() -> None:
        raise ValueError("a bug")

    agent.log = structlog.get_logger()
    part = asyncio.create_task(ends())
    part.add_done_callback(agent._on_part_done)
    with capture_logs() as said:
        await agent.stopping.wait()
    assert (agent.exit_code, [one["event"] for one in said]) == (1, ["a part of the agent ended"])
