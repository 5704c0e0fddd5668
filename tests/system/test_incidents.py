"""What went wrong in the predecessor, replayed against real services; each test's name is the rule that holds now."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from sparring import clock
from sparring.client import Client
from sparring.contracts.base import Fact
from sparring.contracts.health import NodeJoined
from sparring.contracts.lanes import LaneSpec
from sparring.contracts.parts import Artifact, Check, TaskSpec
from sparring.contracts.pipeline import (
    CollectionFinished,
    ExportFinished,
    ExportStarted,
    IterationOpened,
    RegisterLane,
    TrainingFinished,
    TrainingInterrupted,
    TrainingStarted,
)
from sparring.contracts.selfplay_orch import (
    CancelTask,
    RequestTask,
    TaskAssigned,
    TaskFinished,
    TaskRequested,
    TaskStarted,
)
from sparring.contracts.sync import BatchAdmitted, DatasetSealed, GamesRecorded, RecordGames
from sparring.contracts.training_slots import ClaimSlot, PreemptSlot, SlotClaimed, SlotPreempted, SlotReleased
from sparring.decider import Recorded
from sparring.envelope import Envelope, decode, encode, encode_order
from sparring.hearing import whole
from sparring.invariants import violations
from sparring.log import JetStreamLog
from sparring.streams import COMMANDS, EVENTS
from sparring.testing import beating, eventually
from sparring.testing.processes import Replica

SERVICES = ("lifecycle", "pipeline", "selfplay-orch", "sync", "training-slots")
SHA = "a" * 64


async def log_of(client: Client) -> list[Recorded]:
    return await whole(JetStreamLog(await client._connected()))


async def facts(client: Client, *kinds: type[Fact]) -> list[Any]:
    return [one.fact for one in await log_of(client) if isinstance(one.fact, kinds)]


async def happened(client: Client, kind: type[Fact], number: int = 1) -> Any:
    """The newest fact of the class once there are as many."""

    async def look() -> list[Any]:
        found = await facts(client, kind)
        return found if len(found) >= number else []

    return (await eventually(look, within_s=40, every_s=0.1, what=kind.__name__))[-1]


async def tell(client: Client, *said: Fact) -> None:
    """Facts of services that this story does not run."""
    js = (await client._connected()).jetstream()
    for fact in said:
        subject, headers, body = encode(fact, Envelope(clock.new_id(), "test", clock.now()))
        await js.publish(subject, body, headers=headers, stream=EVENTS)


def games_of(task: str, file: Artifact) -> RecordGames:
    return RecordGames(batch=f"{task}-1", lane="hex", task=task, attempt=1, node="n1", model="", sha256=file.sha256,
                       bytes=file.bytes, games=500, positions=5000, check=Check(ok=True, games=500, positions=5000),
                       url=file.url)  # fmt: skip


# ---- 2: one batch of 500 games was counted as 3,000; after three restarts 200 events had been handled 600 times


@pytest.mark.timeout(300)
async def test_rule_2_effects_happen_once_whatever_is_delivered_twice(
    client: Client, services: dict[str, Replica], tmp_path: Any
) -> None:
    file = tmp_path / "games"
    file.write_text("five hundred games")
    stored = await client.keep(file, "games")
    js = (await client._connected()).jetstream()
    orders = []
    for number in range(200):
        spec = TaskSpec(kind="export", lane="hex", seed=1, argv=("x",), timeout_s=600)
        order = RequestTask(task=f"t{number}", spec=spec, by="test")
        orders.append(encode_order(order, f"order-{number}", now=clock.now(), source="test"))
    for life in range(3):
        for _ in range(2):
            # the same batch under another message id: an alias, a second bus, a script that was started again
            subject, headers, body = encode_order(
                games_of("batch", stored), clock.new_id(), now=clock.now(), source="test"
            )
            await js.publish(subject, body, headers=headers, stream=COMMANDS)
        for subject, headers, body in orders:
            # past the server's own window of deduplication: the same order, another message
            again = headers | {"Nats-Msg-Id": f"{headers['Nats-Msg-Id']}-{life}"}
            await js.publish(subject, body, headers=again, stream=COMMANDS)
        if life < 2:
            for name in ("sync", "selfplay-orch"):
                await asyncio.to_thread(services[name].kill)
                services[name].start()
    await happened(client, TaskRequested, 200)
    await happened(client, BatchAdmitted)

    async def settled() -> bool:
        return all([(await js.consumer_info(COMMANDS, name)).num_pending == 0 for name in ("sync", "selfplay-orch")])

    await eventually(settled, within_s=60, every_s=0.3)
    found = await log_of(client)
    counted = Counter(type(one.fact).__name__ for one in found)
    assert (counted["GamesRecorded"], counted["BatchAdmitted"], counted["TaskRequested"]) == (1, 1, 200)
    assert sum(one.fact.games for one in found if isinstance(one.fact, BatchAdmitted)) == 500
    balance = await client.rows("select produced, admitted from sync_balance where lane = 'hex'")
    assert balance == [{"produced": 500, "admitted": 500}]
    assert violations(found) == []


# ---- 3's neighbour: three equal batches are three batches


async def test_equal_games_of_two_tasks_count_twice_because_their_causes_differ(client: Client, tmp_path: Any) -> None:
    file = tmp_path / "games"
    file.write_text("equal games")
    for task in ("one", "two"):
        await client.selfplay_complete("hex", file, games=5, positions=50, task=task)
    await happened(client, BatchAdmitted, 2)
    assert len(await facts(client, GamesRecorded)) == 2


# ---- 5: the training lock was still held after the training had completed


def training_lane() -> LaneSpec:
    rules = {"min_positions": 100, "min_new_games": 10, "export_cooldown_s": 0, "window_iterations": 2}
    commands = dict.fromkeys(("selfplay", "export", "train", "evaluate"), ("x", "{job}", "{out}"))
    return LaneSpec.model_validate({"name": "hex", "game": "hex", "commands": commands, "iteration": rules})


Runs = set[tuple[str, int]]


@pytest_asyncio.fixture
async def runs(client: Client) -> AsyncIterator[Runs]:
    """Node `n1` beats, and lists these."""
    async with beating(await client._connected(), "n1") as running:
        yield running["n1"]


async def trains(client: Client, runs: Runs) -> Any:
    """A lane on its way to its training: everything but self-play, export and the training itself is real."""
    await tell(client, NodeJoined(node="n1", boot="b", build="1", compatible=True, ephemeral=False, tags=(), kinds=(),
                                  machine="n1", cores=8, memory_bytes=2**35, gpus=(), seats=2))  # fmt: skip
    await client.ask(RegisterLane(lane="hex", spec=training_lane()))
    await happened(client, IterationOpened)
    check = Check(ok=True)
    await tell(client, BatchAdmitted(batch="b1", lane="hex", games=10, positions=100, model="", sha256=SHA, url="u",
                                     check=check))  # fmt: skip
    await happened(client, CollectionFinished)
    await happened(client, DatasetSealed)
    export = await happened(client, ExportStarted)
    evidence = {"positions": 100, "coverage": {"policy": 1.0}, "duplicates": 0.0}
    await starts(client, runs, export.task)
    await ended(client, runs, export.task, "export", ("shard",), evidence)
    await happened(client, ExportFinished)
    started = await happened(client, TrainingStarted)
    await starts(client, runs, started.task)
    return started


async def starts(client: Client, runs: Runs, task: str) -> None:
    """The task is placed by the planner; its agent is played by hand."""

    async def placed() -> bool:
        return any(fact.task == task for fact in await facts(client, TaskAssigned))

    await eventually(placed, within_s=40, every_s=0.1, what=f"{task} is placed")
    runs.add((task, 1))
    await tell(client, TaskStarted(task=task, attempt=1, node="n1"))


async def ended(
    client: Client, runs: Runs, task: str, kind: str, roles: tuple[str, ...], evidence: dict[str, Any]
) -> None:
    files = tuple(Artifact(name=role, role=role, sha256=SHA, bytes=1, url="u") for role in roles)
    await tell(client, TaskFinished(task=task, attempt=1, node="n1", kind=kind, lane="hex", iteration="hex-1", seconds=1,
                                    files=files, evidence=evidence))  # fmt: skip
    runs.discard((task, 1))


async def test_rule_5_a_slot_is_free_when_its_training_is_reported_and_waiting_lanes_have_it_at_once(
    client: Client, runs: Runs
) -> None:
    started = await trains(client, runs)
    for lane in ("a", "b", "c"):
        await client.ask(ClaimSlot(lane=lane, holder=f"h-{lane}", lease_s=600))
    assert {fact.lane for fact in await facts(client, SlotClaimed)} == {"hex", "a", "b"}
    await ended(client, runs, started.task, "train", ("model",), {"steps": 3})
    await happened(client, TrainingFinished)
    claimed = await happened(client, SlotClaimed, 4)
    assert claimed.lane == "c"
    log = await log_of(client)
    released = next(one for one in log if isinstance(one.fact, SlotReleased))
    served = next(one for one in log if isinstance(one.fact, SlotClaimed) and one.fact.lane == "c")
    assert served.sequence == released.sequence + 1, "one decision frees the slot and serves who waits"


async def test_rule_5_a_training_that_gives_way_keeps_its_checkpoint_and_goes_on_under_the_next_slot(
    client: Client, runs: Runs
) -> None:
    started = await trains(client, runs)
    await client.ask(PreemptSlot(lane="hex", by="me", reason="a demo", grace_s=30))
    await ended(client, runs, started.task, "train", ("model", "checkpoint"), {"steps": 2, "wanted": 9})
    assert (await happened(client, SlotPreempted)).gave_way
    interrupted = await happened(client, TrainingInterrupted)
    assert interrupted.checkpoint.role == "checkpoint"
    again = await happened(client, TrainingStarted, 2)
    assert again.token > started.token and again.task != started.task
    await starts(client, runs, again.task)
    spec = next(fact.spec for fact in await facts(client, TaskRequested) if fact.task == again.task)
    assert [file.role for file in spec.inputs["checkpoint"]] == ["checkpoint"]
    raws = await JetStreamLog(await client._connected(), stream=COMMANDS).load("cmd.selfplay-orch.>")
    assert not [one for raw in raws if isinstance(one := decode(raw.subject, raw.headers, raw.body), CancelTask)]


# ---- 17: a 3600 s timeout on 2-5 h trainings: three attempts, then failed for ever


CONTRADICTIONS = (
    ("selfplay_orch", "SPARRING_SELFPLAY_ORCH__KINDS", '{"train": {"timeout_s": 3600}}', "kinds.train.timeout_s"),
    ("selfplay_orch", "SPARRING_SELFPLAY_ORCH__LEASE_S", "5", "beat_fresh_s"),
    ("training_slots", "SPARRING_TRAINING_SLOTS__LEASE_S", "50", "lease_s"),
    ("pipeline", "SPARRING_PIPELINE__SLOT_LEASE_S", "50", "slot_lease_s"),
    ("node_agent", "SPARRING_NODE_AGENT__RENEW_S", "60", "renew_s"),
)


async def test_rule_17_a_process_whose_times_contradict_each_other_does_not_start(environ: dict[str, str]) -> None:
    async def start(module: str, variable: str, value: str) -> subprocess.CompletedProcess[str]:
        return await asyncio.to_thread(
            subprocess.run, [sys.executable, "-m", module], env={**environ, variable: value}, capture_output=True,
            text=True, timeout=100,
        )  # fmt: skip

    found = await asyncio.gather(*(start(module, variable, value) for module, variable, value, _ in CONTRADICTIONS))
    for done, (_, _, _, named) in zip(found, CONTRADICTIONS, strict=True):
        assert done.returncode == 2
        assert named in done.stderr and "Traceback" not in done.stderr
