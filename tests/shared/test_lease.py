"""Who holds a service's lease can plan, and says nothing while it is cut off."""

from __future__ import annotations

import asyncio

import nats
import pytest
from nats.aio.client import Client

from sparring import lease
from sparring.lease import Lease
from sparring.server import EmbeddedServer
from sparring.testing import eventually
from sparring.testing.proxy import Proxy


class Candidate:
    """A replica that wants the lease; `asked` counts how often it was asked whether it is fit."""

    def __init__(self, nc: Client, name: str) -> None:
        self.lease, self.stopping = Lease(nc, "pipeline", name), asyncio.Event()
        self.able, self.asked = True, 0
        self.keeping = asyncio.create_task(self.lease.keep(self.stopping, self._fit))

    def _fit(self) -> bool:
        self.asked += 1
        return self.able

    async def stop(self) -> None:
        self.stopping.set()
        await self.keeping


async def test_a_replica_that_cannot_plan_gives_the_lease_to_one_that_can(
    nc: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "RENEW_S", 0.02)
    first = Candidate(nc, "0")
    await eventually(lambda: first.lease.held)
    standby = Candidate(nc, "1")
    first.able = False
    await eventually(lambda: standby.lease.held and not first.lease.held)
    asked = first.asked
    await eventually(lambda: first.asked > asked + 10)
    assert standby.lease.held
    first.able, standby.able = True, False
    await eventually(lambda: first.lease.held and not standby.lease.held)
    await first.stop()
    await standby.stop()


@pytest.mark.timeout(60)
async def test_a_replica_that_is_cut_off_leaves_no_word_about_the_lease_for_later(
    server: EmbeddedServer, nc: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "RENEW_S", 0.02)
    assert server.address is not None and nc.is_connected

    async def quiet(_: Exception) -> None: ...

    with Proxy(server.address.url) as proxy:
        cut = await nats.connect(proxy.url, max_reconnect_attempts=-1, reconnect_time_wait=0.05, error_cb=quiet)
        one = Candidate(cut, "0")
        await eventually(lambda: one.lease.held)
        proxy.cut()
        await eventually(lambda: not cut.is_connected)
        # what was under way at that moment ends first
        await eventually(lambda: not one.lease.held)
        before, asked = cut.pending_data_size, one.asked
        await eventually(lambda: one.asked > asked + 10)
        assert cut.pending_data_size == before
        one.able = False
        proxy.heal()
        await one.stop()
        await cut.close()
