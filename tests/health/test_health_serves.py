"""Health as processes on a real server: beats become facts, orders are obeyed, and a planner that dies changes nothing."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import nats
import pytest
from health_world import heart
from nats.aio.client import Client

from sparring import clock
from sparring.contracts.base import Fact, Order
from sparring.contracts.health import (
    CapacityRetargeted,
    ClusterSwitched,
    ForgetNode,
    NodeForgotten,
    NodeJoined,
    NodeLost,
    NodeOrderRefused,
    NodePreemptionNoticed,
    NodeSuspected,
    SwitchCluster,
)
from sparring.envelope import encode_order
from sparring.errors import LogUnavailable
from sparring.hearing import heard
from sparring.log import JetStreamLog
from sparring.server import EmbeddedServer
from sparring.streams import COMMANDS
from sparring.testing import eventually
from sparring.testing.processes import Replica, app_of, running

FAST = {"SPARRING_HEALTH__SUSPECT_S": "2", "SPARRING_HEALTH__LOST_S": "4", "SPARRING_HEALTH__LOST_LEAST_S": "3"}


class Node:
    """A node that only beats."""

    def __init__(self, nc: Client, name: str) -> None:
        self.nc, self.name, self.more = nc, name, dict[str, Any]()
        self.task = asyncio.create_task(self._beat())

    async def _beat(self) -> None:
        while True:
            beat = heart(self.name, machine=self.name, **self.more)
            await self.nc.publish(f"tel.{self.name}.heartbeat", beat.model_dump_json().encode())
            await asyncio.sleep(0.5)

    async def die(self) -> None:
        self.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.task


@contextlib.asynccontextmanager
async def connected(url: str) -> AsyncIterator[Client]:
    nc = await nats.connect(url)
    try:
        yield nc
    finally:
        await nc.close()


async def facts(nc: Client, *classes: type[Fact]) -> list[Any]:
    try:
        found = [heard(raw) for raw in await JetStreamLog(nc).load("evt.health.>")]
    except LogUnavailable:
        return []
    return [one.fact for one in found if one is not None and isinstance(one.fact, classes)]


async def order(nc: Client, one: Order, id: str) -> None:
    subject, headers, body = encode_order(one, id, now=clock.now(), source="test", expires_s=60)
    await nc.jetstream().publish(subject, body, headers=headers, stream=COMMANDS)


@pytest.mark.timeout(180)
async def test_a_node_beats_is_noticed_dies_and_is_forgotten_and_a_dead_planner_orphans_nobody(
    server: EmbeddedServer, tmp_path: Path
) -> None:
    assert server.address is not None
    url = server.address.url
    replicas = [Replica(app_of("health"), url, tmp_path / f"h{n}", replica=str(n), environ=FAST) for n in range(2)]
    async with connected(url) as nc:
        with running(*replicas):
            nodes = [Node(nc, f"n{n}") for n in range(5)]
            await eventually(lambda: _count(nc, NodeJoined, 5), within_s=60)
            replicas[0].kill()
            await order(nc, ForgetNode(node="n0", by="me", reason="alive"), "forget-alive")
            await eventually(lambda: _count(nc, NodeOrderRefused, 1), within_s=60)
            nodes[1].more = {"notice": "the provider", "notice_s": 30.0, "draining": True, "spooled": 1}
            await eventually(lambda: _count(nc, NodePreemptionNoticed, 1), within_s=60)
            await nodes[0].die()
            await eventually(lambda: _count(nc, NodeLost, 1), within_s=60)
            lost, suspected = await facts(nc, NodeLost), await facts(nc, NodeSuspected)
            assert {fact.node for fact in [*lost, *suspected]} == {"n0"}
            await order(nc, ForgetNode(node="n0", by="me", reason="gone"), "forget-dead")
            await eventually(lambda: _count(nc, NodeForgotten, 1), within_s=60)
            await order(nc, SwitchCluster(state="halted", revision=1, by="me"), "halt")
            await eventually(lambda: _count(nc, ClusterSwitched, 1), within_s=60)
            assert await facts(nc, CapacityRetargeted) == [], "a planner that takes over begins at the present seats"
            assert len(await facts(nc, NodeJoined)) == 5
            for node in nodes[1:]:
                await node.die()


async def _count(nc: Client, kind: type[Fact], least: int) -> bool:
    return len(await facts(nc, kind)) >= least
