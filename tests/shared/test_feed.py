"""A feed that lost something on the way knows it, and hands it on."""

from __future__ import annotations

import asyncio

import nats
import pytest
from nats.aio.client import Client

from sparring.log import Expect, JetStreamLog, Outgoing, Raw
from sparring.server import EmbeddedServer
from sparring.testing import eventually
from sparring.testing.proxy import Proxy


def one(subject: str) -> list[Outgoing]:
    return [Outgoing(f"{subject}.Something", {}, b"{}", Expect(f"{subject}.>", 0))]


@pytest.mark.timeout(60)
async def test_the_last_message_before_a_silence_is_handed_on_although_its_delivery_was_lost(
    server: EmbeddedServer, nc: Client
) -> None:
    """The server's consumer counts it as delivered, the network swallowed it, and nothing comes after it."""
    assert server.address is not None
    found: list[Raw] = []

    async def quiet(_: Exception) -> None: ...

    async def follow(log: JetStreamLog) -> None:
        async for batch in log.follow(0):
            found.extend(batch)

    with Proxy(server.address.url) as proxy:
        cut = await nats.connect(proxy.url, max_reconnect_attempts=-1, reconnect_time_wait=0.05, error_cb=quiet)
        following = asyncio.create_task(follow(JetStreamLog(cut)))
        await JetStreamLog(nc).append(one("evt.a.b.first"), "1")
        await eventually(lambda: len(found) == 1)
        proxy.deafen()
        await JetStreamLog(nc).append(one("evt.a.b.second"), "2")
        await eventually(lambda: proxy.swallowed > 0, what="the delivery is lost")
        proxy.heal()
        await eventually(lambda: [raw.sequence for raw in found] == [1, 2], within_s=40)
        following.cancel()
        await cut.close()


@pytest.mark.timeout(60)
async def test_a_feed_that_is_cut_off_asks_for_nothing_until_it_is_connected_again(
    server: EmbeddedServer, nc: Client
) -> None:
    assert server.address is not None
    found: list[Raw] = []
    beats = list[float]()

    async def quiet(_: Exception) -> None: ...

    async def follow(log: JetStreamLog) -> None:
        async for batch in log.follow(0):
            found.extend(batch)
            if not batch and not cut.is_connected:
                beats.append(cut.pending_data_size)

    with Proxy(server.address.url) as proxy:
        cut = await nats.connect(proxy.url, max_reconnect_attempts=-1, reconnect_time_wait=0.05, error_cb=quiet)
        following = asyncio.create_task(follow(JetStreamLog(cut)))
        await JetStreamLog(nc).append(one("evt.a.b.first"), "1")
        await eventually(lambda: len(found) == 1)
        proxy.cut()
        # the feed waits for its beats first, and takes leave of the consumer that it had
        await eventually(lambda: len(beats) > 10, within_s=30)
        assert beats[-1] == beats[3]
        await JetStreamLog(nc).append(one("evt.a.b.second"), "2")
        proxy.heal()
        await eventually(lambda: [raw.sequence for raw in found] == [1, 2], within_s=40)
        following.cancel()
        await cut.close()
