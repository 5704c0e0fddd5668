"""A watcher that hears nothing, or hears many fall silent at once, orphans nothing that is alive."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import nats
import pytest
from nats.aio.client import Client

from sparring import clock
from sparring.contracts import fingerprint
from sparring.contracts.base import Fact
from sparring.contracts.health import NodeJoined, NodeLost, ObservationLost, ObservationRegained
from sparring.contracts.node_agent import StartTask
from sparring.contracts.parts import TaskSpec
from sparring.contracts.readings import Heartbeat, Resources, RunningTask
from sparring.contracts.selfplay_orch import ReportTaskStarted, RequestTask, TaskOrphaned, TaskStarted
from sparring.decider import Recorded
from sparring.envelope import encode_order
from sparring.hearing import whole
from sparring.log import JetStreamLog
from sparring.streams import COMMANDS, TELEMETRY
from sparring.subjects import filter_of
from sparring.testing import eventually, nats_server
from sparring.testing.processes import Replica, app_of
from sparring.testing.proxy import Proxy
from sparring.topology import declare_topology

BEAT_S, SUSPECT_S, LOST_S, BLIND_S = 0.3, 1.5, 3.0, 12.0
NODES = tuple(f"n{number}" for number in range(10))
ENVIRON = {
    "SPARRING_HEALTH__SUSPECT_S": str(SUSPECT_S),
    "SPARRING_HEALTH__LOST_S": str(LOST_S),
    "SPARRING_HEALTH__OBSERVATION_S": str(BLIND_S),
    "SPARRING_SELFPLAY_ORCH__LEASE_S": "4",
    "SPARRING_SELFPLAY_ORCH__BEAT_FRESH_S": "2",
}
ROOM = Resources(cores=8, cpu_share=0.1, foreign_cpu_share=0.0, memory_total_bytes=2**36, memory_available_bytes=2**35,
                 disk_free_bytes=2**40, disk_total_bytes=2**41)  # fmt: skip


@dataclass
class Nodes:
    """Ten agents as the wire knows them: they beat, and list the tasks that they were given."""

    nc: Client
    silent: set[str] = field(default_factory=set)
    running: dict[str, list[RunningTask]] = field(default_factory=lambda: {name: [] for name in NODES})

    async def order(self, order: object, id: str) -> None:
        subject, headers, body = encode_order(order, id, now=clock.now(), source="test")  # type: ignore[arg-type]
        await self.nc.jetstream(timeout=5).publish(subject, body, headers=headers, stream=COMMANDS)

    async def live(self) -> None:
        taken: set[str] = set()
        while True:
            for raw in await JetStreamLog(self.nc, stream=COMMANDS).load(filter_of(StartTask)):
                start = StartTask.model_validate_json(raw.body)
                seat = f"{start.task}-{start.attempt}"
                if seat not in taken:
                    taken.add(seat)
                    one = RunningTask(task=start.task, attempt=start.attempt, kind="export", lane="hex", for_s=0)
                    self.running[start.node].append(one)
                    await self.order(ReportTaskStarted(task=start.task, attempt=start.attempt, node=start.node), seat)
            for name in NODES:
                if name not in self.silent:
                    beat = Heartbeat(node=name, boot="b", build="1", contracts=fingerprint(), machine=name,
                                     running=tuple(self.running[name]), resources=ROOM)  # fmt: skip
                    await self.nc.publish(f"tel.{name}.heartbeat", beat.model_dump_json().encode())
            await asyncio.sleep(BEAT_S)


@dataclass
class Place:
    nc: Client
    nodes: Nodes
    proxy: Proxy

    async def facts(self) -> list[Recorded]:
        return await whole(JetStreamLog(self.nc))

    async def happened(self, kind: type[Fact], count: int = 1, within_s: float = 40.0) -> list[Recorded]:
        async def look() -> list[Recorded]:
            found = [one for one in await self.facts() if isinstance(one.fact, kind)]
            return found if len(found) >= count else []

        return await eventually(look, within_s=within_s, every_s=0.1, what=f"{count} × {kind.__name__}")

    async def beats_for(self, seconds: float) -> None:
        """Until the nodes that speak have beaten for so long, by the server's clock."""
        js = self.nc.jetstream(timeout=5)
        first = (await js.get_last_msg(TELEMETRY, "tel.n9.heartbeat")).time
        assert first is not None

        async def look() -> bool:
            last = (await js.get_last_msg(TELEMETRY, "tel.n9.heartbeat")).time
            return last is not None and (last - first).total_seconds() >= seconds

        await eventually(look, within_s=60, every_s=0.1)

    async def nothing_died(self) -> None:
        assert [one.fact for one in await self.facts() if isinstance(one.fact, NodeLost | TaskOrphaned)] == []


@contextlib.asynccontextmanager
async def watched(folder: Path) -> AsyncIterator[Place]:
    """Health and selfplay-orch behind a network that can fail; ten nodes with a task each."""
    with nats_server() as server:
        assert server.address is not None
        nc = await nats.connect(server.address.url)
        await declare_topology(nc)
        with Proxy(server.address.url) as proxy:
            services = [
                Replica(app_of(name), proxy.url, folder, environ=ENVIRON).start()
                for name in ("health", "selfplay-orch")
            ]
            place = Place(nc, Nodes(nc), proxy)
            living = asyncio.create_task(place.nodes.live())
            try:
                await place.happened(NodeJoined, len(NODES))
                spec = TaskSpec(kind="export", lane="hex", seed=1, argv=("x",), timeout_s=600.0)
                for number in range(len(NODES)):
                    await place.nodes.order(RequestTask(task=f"t{number}", spec=spec, by="pipeline"), f"ask-{number}")
                await place.happened(TaskStarted, len(NODES))
                yield place
            finally:
                living.cancel()
                for one in services:
                    one.kill()
                await nc.close()


@pytest.mark.timeout(180)
async def test_a_watcher_that_was_cut_off_orphans_nothing_that_was_alive(tmp_path: Path) -> None:
    async with watched(tmp_path) as place:
        place.proxy.cut()
        await place.beats_for(3 * LOST_S)
        place.proxy.heal()
        # silence starts again at the reconnect: long enough to lose somebody, were they silent
        await place.beats_for(3 * LOST_S)
        await place.nothing_died()
        place.nodes.silent = {"n0"}
        lost = await place.happened(NodeLost)
        assert [one.fact.id for one in lost] == ["n0"], "it watches again"


@pytest.mark.timeout(180)
async def test_forty_percent_falling_silent_at_once_is_the_watchers_own_trouble(tmp_path: Path) -> None:
    async with watched(tmp_path) as place:
        place.nodes.silent = set(NODES[:4])
        await place.happened(ObservationLost)
        await place.beats_for(2 * LOST_S)
        await place.nothing_died()
        place.nodes.silent = set()
        await place.happened(ObservationRegained)
        await place.beats_for(2 * LOST_S)
        await place.nothing_died()


@pytest.mark.timeout(180)
async def test_nodes_that_stay_silent_past_the_time_of_doubt_are_lost(tmp_path: Path) -> None:
    async with watched(tmp_path) as place:
        place.nodes.silent = set(NODES[:4])
        doubt = await place.happened(ObservationLost)
        lost = await place.happened(NodeLost, 4, within_s=60)
        assert min(one.at for one in lost) >= doubt[0].fact.until  # type: ignore[attr-defined]
        await place.happened(TaskOrphaned, 4)
        assert {one.fact.id for one in lost} == set(NODES[:4])
