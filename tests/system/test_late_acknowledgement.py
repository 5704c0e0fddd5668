"""Out of order and out of time: an acknowledgement after the last attempt, an order before the one that mints its entity."""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import service_stories as stories

from sparring.catalogue import services
from sparring.contracts.health import DeadLetterRecorded, DeadLetterRecovered, RedriveDeadLetter
from sparring.contracts.parts import TaskSpec
from sparring.contracts.selfplay_orch import CancelTask, RequestTask, TaskCancelled
from sparring.contracts.training_slots import ClaimSlot, SlotClaimed
from sparring.hearing import whole
from sparring.invariants import violations
from sparring.log.guards import unguarded
from sparring.testing import eventually, nats_server
from sparring.testing.processes import Replica, app_of
from sparring.topology import declare_durable


@pytest.mark.timeout(180)
async def test_what_was_done_before_it_was_given_up_is_done_once_when_it_is_redriven(tmp_path: Path) -> None:
    with nats_server() as server:
        assert server.address is not None
        url = server.address.url
        stage = await stories.Stage.of(url, window_s=0.2)
        pool = next(one for one in services() if one.name == "training-slots")
        for durable in pool.durables():
            # one attempt, given up a second after it began
            last = replace(durable, ack_wait_s=1.0, max_deliver=1) if durable.name == pool.name else durable
            await declare_durable(stage.js, last)
        sleeper = Replica(app_of(pool.name), url, tmp_path, "0").start("appended:2:stop")
        others = [Replica(app_of("health"), url, tmp_path), Replica(app_of(pool.name), url, tmp_path, "1")]
        try:
            await stage.order(ClaimSlot(lane="a", holder="h-a", lease_s=600))
            assert sleeper.process is not None and sleeper.process.pid is not None
            stopped = psutil.Process(sleeper.process.pid)
            await eventually(lambda: stopped.status() == psutil.STATUS_STOPPED, within_s=60, what="appended, not acked")
            for one in others:
                await asyncio.to_thread(one.start)
            letter = (await stage.happened(DeadLetterRecorded))[0].fact.letter
            # its acknowledgement comes now, after the last attempt
            os.kill(stopped.pid, signal.SIGCONT)
            await stage.order(RedriveDeadLetter(letter=letter, by="test"))
            await stage.happened(DeadLetterRecovered)
            facts = await whole(stage.log)
            assert [one.fact.holder for one in facts if isinstance(one.fact, SlotClaimed)] == ["h-a"]
            assert len([one for one in facts if isinstance(one.fact, DeadLetterRecorded)]) == 1
            assert violations(facts) == []
            assert await unguarded(stage.log) == []
        finally:
            for one in [sleeper, *others]:
                one.kill()
            await stage.nc.close()


@pytest.mark.timeout(120)
async def test_an_order_that_overtakes_the_one_that_mints_its_entity_waits_for_it(tmp_path: Path) -> None:
    with nats_server() as server:
        assert server.address is not None
        stage = await stories.Stage.of(server.address.url)
        orch = Replica(app_of("selfplay-orch"), server.address.url, tmp_path).start()
        try:
            await stage.order(CancelTask(task="t1", reason="not wanted"))

            async def refused() -> bool:
                log = tmp_path / f"{Path(orch.where).name.partition('.')[0]}-0.log"
                return log.exists() and "NoSuchEntity: CancelTask names task 't1'" in log.read_text()

            await eventually(refused, within_s=30, what="it is tried again, not acknowledged")
            spec = TaskSpec(kind="export", lane="hex", seed=1, argv=("x",), timeout_s=600.0)
            await stage.order(RequestTask(task="t1", spec=spec, by="test"))
            await stage.happened(TaskCancelled)
        finally:
            orch.kill()
            await stage.nc.close()
