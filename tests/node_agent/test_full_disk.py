"""A full disk costs a task, never the node: its seat is free again, it hears what it is told, and no program is left."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from agent_node import alive
from node_here import full, node, task
from structlog.testing import capture_logs

from node_agent import orders, work
from node_agent.child import Child
from node_agent.limits import Limits
from node_agent.orders import Orders
from node_agent.roster import Running
from node_agent.work import run_task
from sparring import clock
from sparring.contracts.node_agent import StartTask
from sparring.contracts.selfplay_orch import ReportTaskFailed, ReportTaskStarted
from sparring.contracts.sync import RecordGames
from sparring.envelope import encode_order
from sparring.testing import eventually


async def test_an_outcome_waits_for_room_on_the_disk_that_its_own_folder_makes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "AGAIN_S", 0.001)
    agent, folder = node(tmp_path), tmp_path / "work" / "t-1"
    running = Running(task(tmp_path))
    agent.running[running.key] = running
    agent.running.note(running)
    refused = []

    def room(order: Any) -> bool:
        if isinstance(order, ReportTaskStarted):
            return True
        refused.append(order)
        # the records of the games, then the report of that failure, twice
        return not folder.exists() and len(refused) > 3

    agent.spool.room = room
    await run_task(agent, running)
    assert [type(one) for one in refused] == [RecordGames, ReportTaskFailed, ReportTaskFailed, ReportTaskFailed]
    assert "No space left" in agent.spool.said[-1].reason
    assert not folder.exists() and not agent.running and not list((tmp_path / "tasks").iterdir())
    assert agent.custody.batches() == [], "nobody will ever ask for games that no record names"
    assert list((tmp_path / "games").iterdir()) == []


async def test_a_task_whose_agent_ends_meanwhile_is_left_for_the_next_life(tmp_path: Path) -> None:
    agent = node(tmp_path)
    running = Running(task(tmp_path, "import time; time.sleep(600)"))
    agent.running[running.key] = running
    agent.running.note(running)
    under_way = asyncio.create_task(run_task(agent, running))
    await eventually(lambda: running.child is not None and running.child.pid)
    under_way.cancel()
    await asyncio.wait((under_way,))
    assert [one.name for one in (tmp_path / "tasks").iterdir()] == ["t-1.json"]


class Message:
    """An order as it arrives."""

    def __init__(self, order: StartTask) -> None:
        self.subject, self.headers, self.data = encode_order(order, "id", now=clock.now(), source="test")
        self.acked = False

    async def ack(self) -> None:
        self.acked = True


async def test_an_order_that_a_full_disk_refuses_comes_again_and_the_agent_hears_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent, begun, coming = node(tmp_path), list[str](), asyncio.Queue[Message]()
    monkeypatch.setattr(orders, "run_task", lambda _, running: running.key)
    agent.go = begun.append
    first, again = Message(task(tmp_path)), Message(task(tmp_path))

    async def fetch(**_: Any) -> list[Message]:
        return [await coming.get()]

    async def bind(*_: Any) -> Any:
        return SimpleNamespace(fetch=fetch)

    agent.nc = SimpleNamespace(jetstream=lambda **_: SimpleNamespace(pull_subscribe_bind=bind))
    obeying = Orders(agent)
    hearing = asyncio.create_task(obeying.obey())
    note, agent.running.note = agent.running.note, full
    coming.put_nowait(first)
    with capture_logs() as said:
        await eventually(lambda: said)
    assert "comes again" in said[0]["event"]
    assert not first.acked and not agent.running and not obeying._known and begun == []
    agent.running.note = note
    coming.put_nowait(again)
    await eventually(lambda: again.acked)
    assert begun == ["t-1"] and list(agent.running) == ["t-1"]
    hearing.cancel()


async def test_a_program_is_ended_when_its_start_could_not_be_taken_in(tmp_path: Path) -> None:
    child = Child(["python", "-c", "import time; time.sleep(600)"], tmp_path, {}, Limits(0), "b/t-1")
    pids = list[int]()

    def on_started() -> None:
        assert child.pid is not None
        pids.append(child.pid)
        full()

    child.on_started = on_started
    with pytest.raises(OSError, match="No space left"):
        await child.run(60, lambda *_: None)
    assert not psutil.pid_exists(pids[0]) or not alive(psutil.Process(pids[0]))


async def test_a_program_runs_though_its_process_id_could_not_be_written_down(tmp_path: Path) -> None:
    agent = node(tmp_path)
    running = Running(task(tmp_path))
    agent.running[running.key] = running
    agent.running.note = full
    await run_task(agent, running)
    assert [type(one).__name__ for one in agent.spool.said] == [
        "ReportTaskStarted",
        "RecordGames",
        "ReportTaskFinished",
    ]
