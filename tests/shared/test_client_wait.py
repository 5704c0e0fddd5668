"""Who waits for a task hears of its end, also when its state was carried forward meanwhile."""

from __future__ import annotations

from pathlib import Path

from nats.aio.client import Client as Nats

from selfplay_orch.core.task import TASK
from sparring import clock
from sparring.client import Client
from sparring.contracts.selfplay_orch import TaskFinished, TaskStarted
from sparring.entity_store import Because, EntityStore
from sparring.log import JetStreamLog


async def test_a_task_that_was_carried_forward_is_waited_for_like_another(nc: Nats, tmp_path: Path) -> None:
    store = EntityStore(JetStreamLog(nc))
    because = Because("t", clock.now(), "a")
    await store.execute([(TASK, "t")], lambda _: [TaskStarted(task="t", attempt=1, node="n1")], because)
    await store.carry_forward(TASK, "t", because)
    end = TaskFinished(
        task="t", attempt=1, node="n1", kind="train", lane="hex", seconds=1, files=(), evidence={"steps": 3}
    )
    await store.execute([(TASK, "t")], lambda _: [end], Because("t", clock.now(), "b"))
    async with Client(nc.connected_url.geturl(), str(tmp_path)) as client:
        assert (await client.wait("t", within_s=20)).evidence == {"steps": 3}
