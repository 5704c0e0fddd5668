"""Work for the cluster and work of one's own, through the SDK and `spar`, with a real agent and real services."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cluster
import nats
import numpy as np
import pytest
from typer.testing import CliRunner

import sparring
from sparring import clock, telemetry
from sparring.cli.app import build
from sparring.client import Client, NoEvidence, TaskEnded
from sparring.contracts.base import Fact
from sparring.contracts.health import NodeJoined
from sparring.contracts.parts import Artifact, Check
from sparring.contracts.pipeline import ExportFinished, IterationClosed, IterationOpened, LanePaused, PauseLane
from sparring.contracts.selfplay_orch import TaskAbandoned, TaskFailed, TaskFinished
from sparring.contracts.sync import BatchAdmitted, RecordGames
from sparring.envelope import Envelope, encode
from sparring.errors import BadInput, CannotAnswer
from sparring.hearing import whole
from sparring.invariants import violations
from sparring.log import JetStreamLog
from sparring.reader import log_identity
from sparring.server import EmbeddedServer
from sparring.streams import COMMANDS, EVENTS
from sparring.testing import eventually
from sparring.topology import declare_topology

SERVICES = ("health", "pipeline", "selfplay-orch", "sync")
DISTIL = Path(__file__).parents[2] / "examples" / "distillation" / "distil.py"
SHA = "a" * 64


@pytest.fixture
def agent(url: str, home: Path) -> Iterator[subprocess.Popen[bytes]]:
    with cluster.agent(url, home, "n1", "--beat-s", "0.5") as process:
        yield process


async def facts(client: Client, *kinds: type[Fact]) -> list[Any]:
    log = await whole(JetStreamLog(await client._connected()))
    return [one.fact for one in log if isinstance(one.fact, kinds)]


async def tell(client: Client, *said: Fact) -> None:
    """Facts of services that this story does not run."""
    js = (await client._connected()).jetstream()
    for fact in said:
        subject, headers, body = encode(fact, Envelope(clock.new_id(), "test", clock.now()))
        await js.publish(subject, body, headers=headers, stream=EVENTS)


async def exported(client: Client, folder: Path) -> Artifact:
    """An iteration of `hex` whose export is in the store: 64 positions that a linear student can learn."""
    rng = np.random.default_rng(1)
    planes = rng.random((64, 6), dtype=np.float32)
    policy = np.eye(4, dtype=np.float32)[planes[:, :4].argmax(axis=1)]
    file = folder / "shard.npz"
    np.savez(file, planes=planes, policy=policy)
    shard = await client.keep(file, "shard")
    at = clock.now()
    await tell(
        client,
        IterationOpened(iteration="hex-900", lane="hex", number=900, min_positions=1, min_new_games=1, games_before=0,
                        positions_before=0, deadline_at=at),
        ExportFinished(iteration="hex-900", lane="hex", dataset=SHA, shards=(shard,), positions=64, coverage={},
                       duplicates=0, quality=1, deadline_at=at),
        IterationClosed(iteration="hex-900", lane="hex", outcome="rejected", reason="r", games=0, seconds=1),
    )  # fmt: skip
    return shard


async def spar(url: str, *arguments: str) -> tuple[int, str]:
    """Exit code and output of a command, run in this process."""
    before = arguments.index("--") if "--" in arguments else len(arguments)
    told = [*arguments[:before], "--nats", url, *arguments[before:]]
    done = await asyncio.to_thread(CliRunner().invoke, build(), told)
    return done.exit_code, done.output


async def test_a_kind_of_ones_own_is_placed_run_and_recorded_with_its_evidence(
    client: Client, url: str, agent: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    """The example: a student that distils the shards of a lane's last export, by spar submit."""
    shard = await exported(client, tmp_path)
    command = ("--", sys.executable, str(DISTIL), "--job", "{job}", "--out", "{out}")
    code, text = await spar(
        url, "submit", "distill", "--lane", "hex", "--input", "shards", "--wait", "--json", *command
    )
    assert code == 0, text
    told = json.loads(text)
    assert told["evidence"]["positions"] == 64
    assert told["evidence"]["loss_after"] < told["evidence"]["loss_before"] - 0.1
    (student,) = [Artifact.model_validate(one) for one in told["files"]]
    assert (await client.fetch(student, tmp_path)).name == "student.npz"
    (finished,) = await facts(client, TaskFinished)
    assert (finished.kind, finished.node, finished.task) == ("distill", "n1", told["task"])

    code, text = await spar(url, "why", told["task"])
    assert code == 0 and "distill for hex" in text and "TaskFinished" in text and "TaskAssigned" in text
    code, text = await spar(url, "why", "n1", "--json")
    assert code == 0 and json.loads(text)["node"]["state"] == "healthy"
    code, text = await spar(url, "tasks", "--kind", "distill", "--node", "n1", "--json")
    assert [row["state"] for row in json.loads(text)["tasks"]] == ["finished"]
    assert (await client.estimate("train", "hex", "n1")).measured == 0

    schedule = await client.can_schedule("train", "hex")
    # the readings are this machine's own: others may keep it busy
    assert (schedule.allowed, schedule.node, schedule.p90_s) == (True, "n1", 14_400.0) or schedule.reason == "CPU"
    answer = await client.can_spawn("selfplay", "n1")
    assert answer.allowed or answer.reason == "CPU"
    assert {term.name for term in answer.terms} >= {"disk free bytes", "age s"}
    with pytest.raises(CannotAnswer, match="not kept"):
        await client.can_spawn(
            "selfplay", "n1", at=(await client.rows("select max(sequence) n from positions"))[0]["n"]
        )
    with pytest.raises(BadInput, match="never joined"):
        await client.can_spawn("selfplay", "nobody")
    assert shard.sha256


async def test_a_task_that_waits_says_for_what_and_can_be_cancelled(client: Client, url: str) -> None:
    code, text = await spar(url, "submit", "distill", "--lane", "hex", "--gpu", "--json", "--", "x", "{job}", "{out}")
    assert code == 0, text
    task = json.loads(text)["task"]

    async def denied() -> bool:
        _, text = await spar(url, "why", task)
        return "no node" in text and "waits for  a seat" in text and "selfplay-orch, which is up" in text

    await eventually(denied, within_s=40, every_s=0.5)
    code, text = await spar(url, "tasks", "cancel", task, "--reason", "a test")
    assert code == 0 and "TaskCancelled" in text
    with pytest.raises(TaskEnded, match="a test"):
        await client.wait(task, within_s=20)


async def test_work_in_ones_own_process_is_a_task_with_evidence_or_with_the_exceptions_reason(
    client: Client, url: str, tmp_path: Path
) -> None:
    file = tmp_path / "report.txt"
    file.write_text("all is well")
    async with client.task("analysis", "hex") as task:
        task.evidence["rows"] = 3
        await task.file(file, "report")
    with pytest.raises(ZeroDivisionError):
        async with client.task("analysis", "hex"):
            _ = 1 / 0
    with pytest.raises(NoEvidence):
        async with client.task("analysis", "hex"):
            pass

    @client.task("analysis", "hex")
    async def counted(number: int) -> dict[str, int]:
        """Every call is a task of its own."""
        return {"counted": number}

    assert [await counted(n) for n in (1, 2)] == [{"counted": 1}, {"counted": 2}]

    def blocking() -> None:
        with sparring.connect(url) as one, one.task("analysis", "hex") as own:
            own.evidence["blocking"] = True

    await asyncio.to_thread(blocking)

    async def finished() -> list[Any]:
        found = await facts(client, TaskFinished)
        return found if len(found) == 4 else []

    done = await eventually(finished)
    # a report that overtook its start is told again later: tasks of their own have no order
    by_evidence = {json.dumps(one.evidence): one for one in done}
    assert set(by_evidence) == {'{"rows": 3}', '{"counted": 1}', '{"counted": 2}', '{"blocking": true}'}
    first = by_evidence['{"rows": 3}']
    assert first.files[0].role == "report" and first.node.startswith("outside-")
    failed = await eventually(lambda: two(client))
    assert sorted("ZeroDivisionError" in one.reason for one in failed) == [False, True]
    assert sorted("evidence" in one.reason for one in failed) == [False, True]
    assert all(one.retry_at is None for one in failed) and len(await facts(client, TaskAbandoned)) == 2


async def two(client: Client) -> list[Any]:
    found = await facts(client, TaskFailed)
    return found if len(found) == 2 else []


async def test_games_that_a_script_played_are_admitted_once(client: Client, tmp_path: Path) -> None:
    file = tmp_path / "games.json"
    file.write_text("[1, 2]")
    for _ in range(2):
        await client.selfplay_complete("hex", file, games=2, positions=20, task="by-hand")
    (admitted,) = await eventually(lambda: facts(client, BatchAdmitted))
    assert (admitted.batch, admitted.games) == ("by-hand-1", 2)
    with pytest.raises(BadInput, match="evidence"):
        await client.selfplay_complete("hex", file, games=0, positions=0)
    assert violations(await whole(JetStreamLog(await client._connected()))) == []


async def test_a_subscription_with_a_name_goes_on_behind_what_was_handled(client: Client, tmp_path: Path) -> None:
    file = tmp_path / "games.json"
    file.write_text("[1, 2]")

    async def next_batch() -> str:
        facts = client.subscribe(BatchAdmitted, since=1, durable="mine")
        try:
            async with asyncio.timeout(30):
                return (await anext(facts)).fact.batch  # type: ignore[attr-defined, no-any-return]
        finally:
            await facts.aclose()  # type: ignore[attr-defined]

    for task in ("one", "two"):
        await client.selfplay_complete("hex", file, games=2, positions=20, task=task)
        await eventually(lambda: admitted(client, task))
    assert await next_batch() == "one-1"
    assert await next_batch() == "one-1", "it was not handled: nobody asked for the one after it"
    facts = client.subscribe(BatchAdmitted, since=1, durable="mine")
    assert [(await anext(facts)).fact.batch for _ in range(2)] == ["one-1", "two-1"]  # type: ignore[attr-defined]
    await facts.aclose()  # type: ignore[attr-defined]
    assert await next_batch() == "two-1"
    assert await client.sync_now() == 0


async def admitted(client: Client, task: str) -> bool:
    return any(fact.batch == f"{task}-1" for fact in await facts(client, BatchAdmitted))


async def test_no_answer_is_no_permission(server: EmbeddedServer, url: str) -> None:
    """Nobody has said which limits hold: no question is answered with a guess."""
    async with Client(url) as client:
        for question in (client.can_spawn("selfplay", "n1"), client.can_train("hex"), client.estimate("train", "hex"),
                         client.can_schedule("train", "hex"), client.health()):  # fmt: skip
            with pytest.raises(CannotAnswer, match="spar up"):
                await question
    server.kill()
    async with Client(url) as client:
        with pytest.raises(BadInput, match="no NATS server"):
            await client.can_spawn("selfplay", "n1")


async def test_an_order_is_spooled_while_no_server_answers_and_sent_later_once(
    url: str, server: EmbeddedServer, home: Path
) -> None:
    nc = await nats.connect(url)
    await declare_topology(nc)
    await nc.close()
    outbox = home / "outbox"
    server.kill()
    async with Client(url, outbox=outbox) as client:
        assert await client.send(PauseLane(lane="hex", revision=1, by="me")) == "spooled"
    assert len(list(outbox.glob("*.json"))) == 1
    again = server.start().url
    async with Client(again, outbox=outbox) as client:
        assert not list(outbox.glob("*.json")), "what waited went out with the connection"
        raws = await JetStreamLog(await client._connected(), stream=COMMANDS).load("cmd.pipeline.>")
        assert len(raws) == 1 and await client.flush() == 0
        await client.send(PauseLane(lane="hex", revision=1, by="me"), id=raws[0].headers["ce-id"])
        assert len(await JetStreamLog(await client._connected(), stream=COMMANDS).load("cmd.pipeline.>")) == 1


async def test_what_only_a_node_holds_is_recommended_with_its_urgency_and_a_copy_goes_where_one_wants(
    client: Client, tmp_path: Path
) -> None:
    nc = await client._connected()
    node = NodeJoined(node="n9", boot="b", build="1", compatible=True, ephemeral=True, tags=(), kinds=(), machine="n9",
                      cores=8, memory_bytes=2**35, gpus=(), seats=2)  # fmt: skip
    await tell(client, node)
    check = Check(ok=True, games=7, positions=70, policy_coverage=1.0, mean_plies=10)
    order = RecordGames(batch="far-1", lane="hex", task="far", attempt=1, node="n9", model="", sha256=SHA, bytes=3, games=7,
                        positions=70, check=check)  # fmt: skip
    await client.send(order)

    async def recommended() -> list[Any]:
        return await client.sync_recommendations("hex")

    (one,) = await eventually(recommended)
    assert (one.batch, one.node, one.games, one.ephemeral) == ("far-1", "n9", 7, True)
    assert one.urgency >= 3 * 7
    assert await client.sync_recommendations("another") == []
    assert await client.sync_now("hex") == 1

    async def hastened() -> bool:
        return (await client.sync_recommendations())[0].urgency > 1e8

    await eventually(hastened)
    file = tmp_path / "weights"
    file.write_bytes(b"weights")
    kept = await client.keep(file, "model")
    (copy,) = await client.transfer(kept, to=f"file://{tmp_path}/nas")
    assert copy.url.startswith(f"file://{tmp_path}/nas") and copy.sha256 == kept.sha256
    back = await client.fetch(copy, tmp_path / "back")
    assert back.read_bytes() == b"weights"
    assert nc.is_connected
    with pytest.raises(BadInput):
        await client.transfer(kept, to="s3://nowhere")


SPANS = """
import json, sys
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
import sparring
from sparring import telemetry
from sparring.contracts.pipeline import PauseLane

exporter = InMemorySpanExporter()
telemetry.set_up("mine", exporter=exporter)
with sparring.connect(sys.argv[1]) as client:
    @client.traced("inner", steps=3)
    def inner():
        client.send(PauseLane(lane="hex", revision=1, by="span"))

    with client.span("outer", iteration="hex-7"):
        inner()
    telemetry.send_now()
    found = {one.name: one for one in exporter.get_finished_spans()}
    root = telemetry.root_of("hex-7")
    print(json.dumps({
        "trace": f"{root.trace_id:032x}", "root": f"{root.span_id:016x}",
        "spans": {name: [f"{one.context.trace_id:032x}", f"{one.parent.span_id:016x}", f"{one.context.span_id:016x}"]
                  for name, one in found.items()},
    }))
"""


async def test_a_scripts_spans_lie_in_the_iterations_trace_and_its_orders_carry_it(client: Client, url: str) -> None:
    argv = [sys.executable, "-c", SPANS, url]
    done = await asyncio.to_thread(subprocess.run, argv, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    outer, inner = told["spans"]["outer"], told["spans"]["inner"]
    assert outer[:2] == [told["trace"], told["root"]]
    assert inner[:2] == [told["trace"], outer[2]]
    (paused,) = [
        one for one in await whole(JetStreamLog(await client._connected())) if isinstance(one.fact, LanePaused)
    ]
    assert paused.traceparent.split("-")[1] == told["trace"], "the service went on in the trace of the order"
    # the trace is the one that services write the iteration's own spans into
    telemetry.salt_with(await log_identity(await client._connected()))
    assert f"{telemetry.root_of('hex-7').trace_id:032x}" == told["trace"]


async def test_progress_is_a_reading_that_somebody_must_hear(client: Client, url: str) -> None:
    heard = asyncio.Queue[dict[str, Any]]()
    nc = await client._connected()

    async def hear(message: Any) -> None:
        heard.put_nowait(json.loads(message.data))

    await nc.subscribe("tel.*.progress", cb=hear)
    await nc.flush()
    run = CliRunner()

    def record(*arguments: str) -> Any:
        return run.invoke(build(), ["record", "metrics", "hex", *arguments])

    done = await asyncio.to_thread(record, "--done", "3", "--of", "10", "--nats", url)
    assert done.exit_code == 0, done.output
    said = await asyncio.wait_for(heard.get(), 10)
    assert (said["lane"], said["kind"], said["done"], said["of"]) == ("hex", "train", 3.0, 10.0)
    nobody = await asyncio.to_thread(record, "--done", "3", "--of", "10", "--nats", "nats://127.0.0.1:9")
    assert nobody.exit_code != 0
    wrong = await asyncio.to_thread(record, "--done", "11", "--of", "10", "--nats", url)
    assert wrong.exit_code != 0
