"""Two replicas of every service at once: the work is shared, planners fail over, both show the same rows."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cluster
import nats
import pytest
import service_stories as stories
from nats.aio.client import Client
from nats.js.errors import NotFoundError

from sparring import clock
from sparring.catalogue import services
from sparring.contracts.lifecycle import ModelPromoted
from sparring.contracts.pipeline import RegisterLane
from sparring.decider import Recorded
from sparring.envelope import encode_order
from sparring.hearing import whole
from sparring.invariants import violations
from sparring.lane_file import load_lanes
from sparring.lease import RENEW_S
from sparring.log import JetStreamLog
from sparring.log.guards import unguarded
from sparring.log.interface import Raw
from sparring.projection import Projection
from sparring.streams import COMMANDS, LEASE_TTL_S, LEASES, TELEMETRY
from sparring.testing import eventually, nats_server
from sparring.testing.processes import Replica, app_of
from sparring.topology import declare_topology

NAMES = [service.name for service in services()]
# whose orders come often enough in a loop of a minute that both replicas get some
BUSY = ("selfplay-orch", "sync")
# thirteen processes on a machine that others use too: its load is not what this is about
ENVIRON = {"SPARRING_SELFPLAY_ORCH__MOST_CPU": "1", "SPARRING_SELFPLAY_ORCH__MOST_MEMORY": "1"}


class Pair:
    """Every service twice, one agent, two lanes of the tiny engine."""

    def __init__(self, url: str, nc: Client, folder: Path) -> None:
        self.nc, self.js, self.folder = nc, nc.jetstream(timeout=5), folder
        self.replicas = {
            (name, number): Replica(app_of(name), url, folder / "data", str(number), environ=ENVIRON).start()
            for name in NAMES
            for number in (0, 1)
        }
        argv = [sys.executable, "-m", "node_agent", "--nats", url, "--node", "n1", "--data", str(folder / "n1")]
        with (folder / "n1.log").open("wb") as log:
            self.agent = subprocess.Popen(argv, stdout=log, stderr=log, start_new_session=True)

    async def register_lanes(self) -> None:
        file = self.folder / "lanes.toml"
        file.write_text(cluster.lane("a_2p") + cluster.lane("b_2p"))
        for spec in load_lanes(file):
            order = RegisterLane(lane=spec.name, spec=spec)
            subject, headers, body = encode_order(order, f"lane-{spec.name}", now=clock.now(), source="test")
            await self.js.publish(subject, body, headers=headers, stream=COMMANDS)

    async def promoted(self, count: int) -> list[Recorded]:
        async def look() -> list[Recorded]:
            found = [one for one in await whole(JetStreamLog(self.nc)) if isinstance(one.fact, ModelPromoted)]
            return found if len(found) >= count else []

        return await eventually(look, within_s=120, every_s=0.5, what=f"{count} promotions")

    async def said(self, name: str, what: str) -> list[int]:
        """A number of the last beat of both replicas."""
        beats = [await self.js.get_last_msg(TELEMETRY, f"tel.svc-{name}-{number}.heartbeat") for number in (0, 1)]
        return [int(json.loads(beat.data or b"{}")[what]) for beat in beats]

    async def leader(self, name: str) -> str:
        try:
            last = await self.js.get_last_msg(f"KV_{LEASES}", f"$KV.{LEASES}.{name}")
        except NotFoundError:
            return ""
        return str(json.loads(last.data)["holder"]) if last.data else ""

    async def fail_over(self, name: str) -> float:
        """Kills the replica that plans; the seconds until the other one does."""
        holder = await eventually(lambda: self.leader(name))
        victim = self.replicas[name, int(holder)]
        began = time.monotonic()
        await asyncio.to_thread(victim.kill)

        async def another() -> bool:
            return await self.leader(name) not in ("", holder)

        await eventually(another, within_s=30, what=f"another replica of {name} plans")
        took = time.monotonic() - began
        # the next one begins with an empty disk
        shutil.rmtree(self.folder / "data" / name / holder)
        await asyncio.to_thread(victim.start)
        return took

    async def stop(self) -> None:
        self.agent.terminate()
        try:
            await asyncio.to_thread(self.agent.wait, 60)
        finally:
            self.agent.kill()
            for one in self.replicas.values():
                if one.running and one.process is not None:
                    one.process.terminate()
            for one in self.replicas.values():
                await asyncio.to_thread(one.stop)


def rows_of(folder: Path, name: str, number: int, raws: Sequence[Raw]) -> tuple[int, dict[str, Any]]:
    """The position at which the replica's file stood, and its rows at the end of the log."""
    models = next(one for one in services() if one.name == name).read_models
    file = next((folder / "data" / name / str(number)).glob("read-*.duckdb"))
    projection = Projection(file, models)
    try:
        stood = projection.position
        projection.apply(raws)
        return stood, stories.rows(projection)
    finally:
        projection.close()


@pytest.mark.timeout(400)
async def test_two_replicas_share_the_work_fail_over_and_show_the_same_rows(tmp_path: Path) -> None:
    with nats_server() as server:
        assert server.address is not None
        nc = await nats.connect(server.address.url)
        await declare_topology(nc)
        pair = Pair(server.address.url, nc, tmp_path)
        try:
            await pair.register_lanes()
            await pair.promoted(2)

            async def shared() -> bool:
                return all([min(await pair.said(name, "handled")) > 0 for name in BUSY])

            await eventually(shared, within_s=60, what="both replicas obey orders")
            took = {name: await pair.fail_over(name) for name in NAMES}
            print("seconds to another planner: " + ", ".join(f"{name} {s:.1f}" for name, s in took.items()))
            # the dead one's lease has to end, and the standby looks once every RENEW_S
            assert max(took.values()) < LEASE_TTL_S + 2 * RENEW_S
            done = await pair.promoted(3)

            async def stand_again() -> bool:
                return all([min(await pair.said(name, "position")) >= done[-1].sequence for name in NAMES])

            await eventually(stand_again, within_s=60, what="replicas whose disk was lost have read the log")
            await pair.promoted(len(done) + 1)
        finally:
            await pair.stop()
        log = JetStreamLog(nc)
        facts, raws = await whole(log), await log.load("evt.>")
        assert await unguarded(log) == []
        await nc.close()
    assert violations(facts) == []
    for name in NAMES:
        models = next(one for one in services() if one.name == name).read_models
        fresh = Projection(":memory:", models)
        fresh.apply(raws)
        wanted = stories.rows(fresh)
        for number in (0, 1):
            stood, found = rows_of(tmp_path, name, number, raws)
            assert stood > 0
            for table, rows in wanted.items():
                assert found[table] == rows, f"{name}/{number}: {table}"
