"""Processes that decide on the same entities at once: no limit is ever passed, no update lost, tokens rise.

Each race runs on one server, and on three whose leader is killed on the way. `SPARRING_RACES=full` races the whole counts
on three servers too.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.aio.client import Client

from selfplay_orch.core.limits import NODE, Seats
from selfplay_orch.core.task import TASK, Task
from sparring import clock
from sparring.catalogue import services
from sparring.contracts.health import NodeJoined
from sparring.contracts.parts import TaskSpec
from sparring.contracts.selfplay_orch import RequestTask, SeatTaken, TaskAssigned, TaskRequested
from sparring.contracts.training_slots import LaneHeldBack, SlotClaimed
from sparring.decider import Decider, Recorded
from sparring.entity_store import Because, EntityStore
from sparring.envelope import encode_order
from sparring.hearing import whole
from sparring.invariants import violations
from sparring.log import JetStreamLog
from sparring.log.guards import unguarded
from sparring.server import EmbeddedServer
from sparring.streams import COMMANDS, EVENTS, TELEMETRY
from sparring.subjects import ref_of
from sparring.testing import beating, declared, eventually, nats_cluster, nats_server
from sparring.testing.processes import Replica, app_of, call
from sparring.topology import declare_durable

RACERS = Path(__file__).with_name("racers.py")
FULL = os.environ.get("SPARRING_RACES") == "full"
LIMIT = 32
WITHIN_S = 240.0


@dataclass
class Ground:
    """Where a race takes place."""

    servers: list[EmbeddedServer]
    nc: Client
    folder: Path

    @property
    def replicated(self) -> bool:
        return len(self.servers) > 1

    @property
    def urls(self) -> list[str]:
        return [one.address.url for one in self.servers if one.address is not None]

    async def facts(self) -> list[Recorded]:
        return await whole(JetStreamLog(self.nc))

    async def wrong(self) -> list[str]:
        """What the log proves against its owners: broken invariants, and appends that were not guarded."""
        log = JetStreamLog(self.nc)
        return [*violations(await whole(log)), *await unguarded(log)]

    async def kill_the_leader(self) -> None:
        """Of the log, once the race is under way; it comes back, as a supervisor would bring it."""
        js = self.nc.jetstream(timeout=2)
        before = (await js.stream_info(EVENTS)).state.last_seq

        async def under_way() -> str:
            info = await js.stream_info(EVENTS)
            leader = info.cluster.leader if info.cluster is not None else None
            return leader if leader and info.state.last_seq > before + 20 else ""

        name = await eventually(under_way, within_s=60)
        leader = next(one for one in self.servers if one.name == name)
        await asyncio.to_thread(leader.kill)
        await asyncio.to_thread(leader.start)


@contextlib.asynccontextmanager
async def ground(where: str, folder: Path) -> AsyncIterator[Ground]:
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(nats_server())] if where == "one server" else stack.enter_context(nats_cluster())

        async def quiet(_: Exception) -> None: ...

        urls = [one.address.url for one in servers if one.address is not None]
        nc = await nats.connect(urls, max_reconnect_attempts=-1, reconnect_time_wait=0.05, error_cb=quiet)
        await declared(nc, len(servers))
        yield Ground(servers, nc, folder)
        await nc.close()


WHERE = pytest.mark.parametrize("where", ["one server", "three servers, the leader killed"])


async def racing(place: Ground, function: str, arguments: Sequence[Sequence[Any]]) -> list[dict[str, Any]]:
    """All of them at once, to the end; what each reported."""
    results = [place.folder / f"{function}-{number}.json" for number in range(len(arguments))]
    runners = [
        call(RACERS, function, place.urls, *some, str(result), log=place.folder / "racers.log")
        for some, result in zip(arguments, results, strict=True)
    ]
    if place.replicated:
        await place.kill_the_leader()
    try:
        await eventually(lambda: not any(one.is_alive() for one in runners), within_s=WITHIN_S, every_s=0.1)
    finally:
        for one in runners:
            one.kill()
    log = place.folder / "racers.log"
    assert all(one.exists() for one in results), log.read_text()[-3000:] if log.exists() else ""
    return [json.loads(one.read_text()) for one in results]


def report(what: str, told: Sequence[dict[str, Any]]) -> None:
    appends, retries = (sum(one[key] for one in told) for key in ("appends", "retries"))
    print(f"{what}: {appends} appends, {retries} retries, {retries / max(1, appends):.2f} per append")


def seats_over_time(facts: Sequence[Recorded]) -> list[tuple[int, int]]:
    """After every fact: the seats that the guard counts, and the tasks that really run on the node."""
    guard, tasks, counts = Seats(), dict[str, Task](), list[tuple[int, int]]()
    for one in facts:
        ref = ref_of(one.fact)
        if ref == NODE.ref("n1"):
            guard = NODE.evolve(guard, one)
        elif ref.entity == "task":
            tasks[ref.id] = TASK.evolve(tasks.get(ref.id, Task()), one)
        counts.append((len(guard.taken), sum(task.running for task in tasks.values())))
    return counts


async def node_with_room(place: Ground) -> None:
    joined = NodeJoined(node="n1", boot="b", build="1", compatible=True, ephemeral=False, tags=(), kinds=(), machine="n1",
                        cores=64, memory_bytes=2**38, gpus=(), seats=LIMIT)  # fmt: skip
    node: Decider[Any] = Decider("health", "node", None, lambda state, _: state, state_type=type(None))
    because = Because(source="test", now=clock.now(), id="joined")
    await EntityStore(JetStreamLog(place.nc)).execute([(node, "n1")], lambda _: [joined], because)


@WHERE
@pytest.mark.timeout(400)
async def test_four_processes_at_a_node_limit_of_32_admit_32(where: str, tmp_path: Path) -> None:
    each = 500 if FULL or where == "one server" else 60
    async with ground(where, tmp_path) as place:
        await node_with_room(place)
        told = await racing(place, "admit", [(f"p{number}", each, False) for number in range(4)])
        report(f"{4 * each} wishes for {LIMIT} seats, {where}", told)
        facts = await place.facts()
        assert sum(one["admitted"] for one in told) == LIMIT
        assert sum(isinstance(one.fact, TaskAssigned) for one in facts) == LIMIT
        assert await place.wrong() == []


@WHERE
@pytest.mark.timeout(400)
async def test_seats_that_are_freed_are_taken_again_and_never_more_than_there_are(where: str, tmp_path: Path) -> None:
    each = 500 if FULL else 60
    async with ground(where, tmp_path) as place:
        await node_with_room(place)
        told = await racing(place, "admit", [(f"p{number}", each, True) for number in range(4)])
        report(f"{4 * each} tasks through {LIMIT} seats, {where}", told)
        facts = await place.facts()
        counts = seats_over_time(facts)
        assert sum(one["admitted"] for one in told) == 4 * each
        assert len({one.fact.task for one in facts if isinstance(one.fact, TaskAssigned)}) == 4 * each
        assert max(guarded for guarded, _ in counts) <= LIMIT
        assert max(running for _, running in counts) <= LIMIT
        assert max(one.fact.running for one in facts if isinstance(one.fact, SeatTaken)) == LIMIT
        assert await place.wrong() == []


@WHERE
@pytest.mark.timeout(300)
async def test_fifty_writers_in_five_processes_lose_no_update(where: str, tmp_path: Path) -> None:
    each = 10 if FULL else 4
    async with ground(where, tmp_path) as place:
        told = await racing(place, "write", [(f"w{number}", 10, each) for number in range(5)])
        report(f"50 writers × {each} on one entity, {where}", told)
        seen = [int(one.fact.reason) for one in await place.facts() if isinstance(one.fact, LaneHeldBack)]
        # a lost answer may repeat a write; it never overwrites one
        assert seen == sorted(set(seen)) == list(range(len(seen)))
        assert len(seen) >= 50 * each
        assert await unguarded(JetStreamLog(place.nc)) == []


@WHERE
@pytest.mark.timeout(300)
async def test_sixteen_claimants_of_three_slots_whose_holders_die_are_each_served_once(
    where: str, tmp_path: Path
) -> None:
    async with ground(where, tmp_path) as place:
        urls = ",".join(place.urls)
        pools = [Replica(app_of("training-slots"), urls, tmp_path / "data", str(number)).start() for number in range(2)]
        results = [tmp_path / f"claim-{number}.json" for number in range(16)]
        claimants = [
            call(RACERS, "claim", place.urls, f"h{number}", f"lane{number % 8}", number % 3 == 0, str(result),
                 log=tmp_path / "racers.log") for number, result in enumerate(results)
        ]  # fmt: skip
        try:
            if place.replicated:
                await place.kill_the_leader()
            await eventually(lambda: not any(one.is_alive() for one in claimants), within_s=WITHIN_S, every_s=0.1)
            facts = await place.facts()
        finally:
            for one in [*claimants, *pools]:
                one.kill()
        died = sum(one.exitcode == -signal.SIGKILL for one in claimants)
        assert died == 6
        claims = [one for one in facts if isinstance(one.fact, SlotClaimed)]
        assert sorted(one.fact.holder for one in claims) == sorted(f"h{number}" for number in range(16))
        tokens = [json.loads(one.read_text())["token"] for one in results]
        assert sorted(tokens) == [one.sequence for one in claims]
        assert max(one.fact.held for one in claims) <= 3
        assert await place.wrong() == []


def request(number: int) -> tuple[str, dict[str, str], bytes]:
    spec = TaskSpec(kind="export", lane="hex", seed=1, argv=("x",), timeout_s=600.0)
    order = RequestTask(task=f"t{number}", spec=spec, by="pipeline")
    return encode_order(order, f"request-{number}", now=clock.now(), source="test")


async def position(place: Ground, replica: Replica) -> int:
    """What the replica has read of the log, by its last beat."""
    subject = f"tel.svc-selfplay-orch-{replica.replica}.heartbeat"
    beat = await place.nc.jetstream(timeout=2).get_last_msg(TELEMETRY, subject)
    return int(json.loads(beat.data or b"{}")["position"])


@pytest.mark.timeout(120)
async def test_a_planner_that_slept_past_its_lease_harms_nothing(tmp_path: Path) -> None:
    """It wakes up with an old picture and a lease that it lost: what it decides expects an old sequence."""
    async with ground("one server", tmp_path) as place, beating(place.nc, "n1") as runs:
        js = place.nc.jetstream(timeout=5)
        service = next(one for one in services() if one.name == "selfplay-orch")
        for durable in service.durables():
            # what the sleeper has in its hands goes to the other one soon
            await declare_durable(js, replace(durable, ack_wait_s=1.0))
        planners = [Replica(app_of(service.name), place.urls[0], tmp_path / "data", str(n)).start() for n in range(2)]

        async def assigned(count: int) -> list[Recorded]:
            found = [one for one in await place.facts() if isinstance(one.fact, TaskAssigned)]
            runs["n1"].update((one.fact.task, one.fact.attempt) for one in found)
            return found if len(found) >= count else []

        async def ask(*numbers: int) -> None:
            for number in numbers:
                subject, headers, body = request(number)
                await js.publish(subject, body, headers=headers, stream=COMMANDS)

        async def all_heard() -> bool:
            facts = await place.facts()
            asked = sum(isinstance(one.fact, TaskRequested) for one in facts)
            return asked == 40 and await position(place, leader) >= facts[-1].sequence

        try:
            await node_with_room(place)
            await ask(0)
            first = await eventually(lambda: assigned(1))
            raws = await JetStreamLog(place.nc).load(TASK.ref(first[0].fact.task).pattern)
            source = next(raw.headers["ce-source"] for raw in raws if raw.subject.endswith("TaskAssigned"))
            leader = planners[int(source.rpartition("/")[2])]
            assert leader.process is not None and leader.process.pid is not None
            os.kill(leader.process.pid, signal.SIGSTOP)
            await ask(1)
            await eventually(lambda: assigned(2), what="the other one plans")
            os.kill(leader.process.pid, signal.SIGCONT)
            await ask(*range(2, 40))
            await eventually(all_heard, within_s=40, what="the stale one has read everything")
            # two exports a node: the rest waits, and whoever plans must not place it
            facts = await place.facts()
            assert len([one for one in facts if isinstance(one.fact, TaskAssigned)]) == 2
            assert max(guarded for guarded, _ in seats_over_time(facts)) == 2
            assert await place.wrong() == []
        finally:
            for one in planners:
                one.kill()
