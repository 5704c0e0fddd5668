"""A real agent process against a real server: evidence, spool, custody, and no child left behind."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import nats
import psutil
import pytest
from agent_node import FAMILY, GOOD, PARTIAL, SILENT, Node, alive, children

from node_agent.machine import Machine
from node_agent.settings import parse
from node_agent.work import seed_of
from sparring import clock
from sparring.contracts.node_agent import HaltNode, ReleaseCustody, StopTask, UploadBatch
from sparring.contracts.selfplay_orch import ReportTaskFailed, ReportTaskFinished, ReportTaskStarted
from sparring.contracts.sync import RecordGames, ReportStored
from sparring.contracts.training_slots import PreemptionAsked
from sparring.envelope import Envelope, encode
from sparring.errors import BadInput
from sparring.server import EmbeddedServer
from sparring.streams import EVENTS
from sparring.testing import eventually
from sparring.topology import declare_topology


async def test_a_batch_is_recorded_before_its_task_is_done(node: Node) -> None:
    await node.run(GOOD)
    done = await node.hears(ReportTaskFinished)
    recorded = await node.hears(RecordGames)
    assert (recorded.batch, recorded.games, recorded.positions) == ("t-1", 5, 50)
    assert done.evidence["games"] == 5
    assert (node.folder / "node" / "games" / "t-1").exists()
    await node.order(
        UploadBatch(node="n1", batch="t-1", sha256=recorded.sha256, grant=1, lease_s=30, bytes_per_s=10**9), "up"
    )
    stored = await node.hears(ReportStored)
    assert stored.url.endswith(recorded.sha256)
    assert (node.folder / "node" / "games" / "t-1").exists(), "custody is not confirmed yet"
    await node.order(ReleaseCustody(node="n1", batch="t-1", sha256=recorded.sha256), "release")
    await eventually(lambda: not (node.folder / "node" / "games" / "t-1").exists())


async def test_exit_code_0_without_evidence_is_a_failure(node: Node) -> None:
    await node.run(SILENT)
    assert "without a result" in (await node.hears(ReportTaskFailed)).reason
    assert await node.said(ReportTaskFinished) == []


async def test_a_file_whose_hash_differs_is_a_failure(node: Node) -> None:
    await node.run(GOOD, params={"lie": {"sha256": "0" * 64}})
    assert "SHA-256" in (await node.hears(ReportTaskFailed)).reason


async def test_a_wall_limit_ends_the_whole_family(node: Node) -> None:
    await node.run(FAMILY, timeout_s=3)
    assert "ran longer" in (await node.hears(ReportTaskFailed)).reason
    grandchild = int(next((node.folder / "node").rglob("pids")).read_text())
    await eventually(lambda: not psutil.pid_exists(grandchild) or not alive(psutil.Process(grandchild)))


async def test_what_was_done_until_sigterm_counts(node: Node) -> None:
    await node.run(PARTIAL, kind="train")
    await eventually(lambda: children(node), within_s=20)

    async def runs() -> bool:
        beat = await node.beat()
        return any(one.done for one in beat.running)

    await eventually(runs, within_s=20)
    await node.order(StopTask(node="n1", task="t", attempt=1, reason="test"), "stop")
    assert (await node.hears(ReportTaskFinished)).evidence == {"steps": 3}


async def test_who_is_asked_to_give_way_gets_a_sigterm_and_the_time_to_save_what_it_has(node: Node) -> None:
    await node.run(PARTIAL, kind="train", slot_token=1, exclusive=True)
    await eventually(lambda: children(node), within_s=20)

    async def runs() -> bool:
        beat = await node.beat()
        return any(one.done for one in beat.running)

    await eventually(runs, within_s=20)
    for token in (7, 1):
        asked = PreemptionAsked(
            lane="hex", token=token, holder="h", by="me", reason="demo", grace_s=30, until=clock.now()
        )
        subject, headers, body = encode(asked, Envelope(f"asked-{token}", "test", clock.now()))
        await node.nc.jetstream().publish(subject, body, headers=headers, stream=EVENTS)
    assert (await node.hears(ReportTaskFinished)).evidence == {"steps": 3}


async def test_a_redelivered_order_runs_once_and_another_boots_order_never(node: Node) -> None:
    await node.run(GOOD)
    await node.run(GOOD)
    await node.run(GOOD, task="other", boot="some-other-boot")
    await node.hears(ReportTaskFinished)
    await node.run(GOOD, task="last")

    async def both() -> bool:
        return len(await node.said(ReportTaskFinished)) == 2

    await eventually(both, within_s=20)
    assert sorted(one.task for one in await node.said(ReportTaskStarted)) == ["last", "t"]


async def test_an_agent_that_was_killed_reports_what_it_left_and_leaves_no_child(node: Node) -> None:
    await node.run(FAMILY, timeout_s=600)
    started = await node.beat()
    await node.hears(ReportTaskStarted)
    family = await eventually(lambda: children(node), within_s=20)
    assert node.process is not None
    os.kill(node.process.pid, signal.SIGKILL)
    node.process.wait()
    node.start()
    await eventually(lambda: not any(alive(one) for one in family), within_s=20)
    assert (await node.beat(started.boot)).boot != started.boot
    assert "restarted" in (await node.hears(ReportTaskFailed)).reason


async def test_outcomes_survive_a_server_that_is_gone(node: Node, server: EmbeddedServer) -> None:
    await node.run(GOOD, params={"seconds": 2})
    await node.hears(ReportTaskStarted)
    assert server.address is not None
    port = int(server.address.url.rpartition(":")[2])
    server.kill()
    await eventually(lambda: len(list((node.folder / "node" / "spool").glob("*.json"))) >= 3, within_s=30)
    again = EmbeddedServer(server.folder, port=port)
    again.start()
    try:
        nc = await nats.connect(again.address.url)  # type: ignore[union-attr]
        node.nc = nc
        await declare_topology(nc)
        assert (await node.hears(ReportTaskFinished, within_s=60)).task == "t"
        assert len(await node.said(RecordGames)) == 1
        await nc.close()
    finally:
        again.kill()


async def test_halt_ends_every_child_at_once(node: Node) -> None:
    await node.run(FAMILY, timeout_s=600)
    family = await eventually(lambda: children(node), within_s=20)
    await node.order(HaltNode(node="n1", reason="test"), "halt")
    await eventually(lambda: not any(alive(one) for one in family), within_s=10)
    assert "halted" in (await node.hears(ReportTaskFailed)).reason


def test_a_machine_without_gpu_is_normal(tmp_path: Path) -> None:
    found = Machine(tmp_path).read()
    assert found.cores >= 1
    assert json.loads(found.model_dump_json())["gpus"] == list(found.gpus)


def test_the_same_task_again_is_other_games() -> None:
    assert seed_of("t", 1) != seed_of("t", 2)
    assert seed_of("t", 1) == seed_of("t", 1)


def test_a_wrong_option_names_field_value_and_what_there_is() -> None:
    with pytest.raises(BadInput, match="seats = '0'"):
        parse(["--seats", "0"], {})
    assert parse(["--tags", "gpu,eu"], {"SPARRING_NODE_AGENT__KINDS": "train"}).kinds == ("train",)
