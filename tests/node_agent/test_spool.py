"""What is sent leaves nothing behind: an agent runs for weeks."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import structlog
from nats.aio.client import Client

from node_agent import orders
from node_agent.orders import Orders
from node_agent.roster import Roster
from node_agent.spool import Spool
from selfplay_orch.core.task import TASK
from sparring import clock
from sparring.contracts.node_agent import StartTask
from sparring.contracts.parts import TaskSpec
from sparring.contracts.selfplay_orch import ReportTaskStarted, TaskStarted
from sparring.entity_store import Because, EntityStore
from sparring.log import JetStreamLog
from sparring.testing import eventually


async def test_an_outcome_that_is_seen_leaves_neither_file_nor_worker(nc: Client, tmp_path: Path) -> None:
    spool = Spool(tmp_path, nc, "node-agent/n1", structlog.get_logger())
    names = [f"t{number}" for number in range(5)]
    seen = [spool.put(ReportTaskStarted(task=one, attempt=1, node="n1"), key=one, attempt=1, names=("TaskStarted",))
            for one in names]  # fmt: skip
    assert spool.depth == 5
    store = EntityStore(JetStreamLog(nc))
    for one in names:
        fact = TaskStarted(task=one, attempt=1, node="n1")
        await store.execute([(TASK, one)], lambda _, fact=fact: [fact], Because("t", clock.now(), one))  # type: ignore[misc]
    for one in seen:
        await one.wait()
    assert spool.depth == 0
    await eventually(lambda: not spool._watches)
    assert (spool._workers, spool._chains) == ({}, {})


def test_the_orders_that_a_node_remembers_are_the_newest(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(orders, "KNOWN", 3)
    ran: list[object] = []
    agent: Any = SimpleNamespace(boot="b", draining=False, running=Roster(tmp_path), go=ran.append)
    obeying = Orders(agent)
    monkeypatch.setattr(orders, "run_task", lambda agent, running: running.key)
    spec = TaskSpec(kind="selfplay", lane="hex", seed=1, argv=("true",), timeout_s=60)
    for name in ("a", "b", "c", "c", "d", "b", "e", "a"):
        obeying.start(StartTask(node="n1", boot="b", task=name, attempt=1, spec=spec))
    assert ran == ["a-1", "b-1", "c-1", "d-1", "e-1", "a-1"], "a was forgotten as the oldest of five"
