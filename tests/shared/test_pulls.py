"""Whoever is cut off for hours piles nothing up and burns no processor."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from faststream import AckPolicy
from faststream.nats import JStream, NatsBroker, PullSub
from nats.aio.client import Client

from sparring.pulls import REST_S, rest_while_cut_off
from sparring.server import EmbeddedServer
from sparring.streams import COMMANDS, Durable
from sparring.testing import eventually
from sparring.testing.proxy import Proxy
from sparring.topology import consumer_config, declare_durable

DURABLES = tuple(Durable(name, COMMANDS, (f"cmd.{name}.>",)) for name in ("one", "other"))


async def quiet(_: Exception) -> None: ...


async def subscribed(broker: NatsBroker, heard: list[str]) -> Client:
    """The broker's connection, once it pulls as a shell does: in order from one durable, several at once from the other."""
    nc: Client = await broker.connect()

    async def as_it_is(message: Any) -> Any:
        return message

    for durable, at_once in zip(DURABLES, (1, 16), strict=True):

        async def handle(message: Any) -> None:
            heard.append(message.raw_message.subject)

        broker.subscriber(
            durable.filters[0], stream=JStream(COMMANDS, declare=False), durable=durable.name,
            pull_sub=PullSub(batch_size=1, timeout=0.1), config=consumer_config(durable), ack_policy=AckPolicy.ACK,
            decoder=as_it_is, max_workers=at_once,
        )(handle)  # fmt: skip
    await broker.start()
    return nc


@pytest.mark.timeout(60)
async def test_pulls_rest_while_the_server_is_out_of_reach_and_go_on_afterwards(
    server: EmbeddedServer, nc: Client
) -> None:
    assert server.address is not None
    heard, rests = list[str](), list[float]()

    async def rest(seconds: float) -> None:
        rests.append(seconds)
        await asyncio.sleep(0.01)

    for durable in DURABLES:
        await declare_durable(nc.jetstream(), durable)
    with Proxy(server.address.url) as proxy:
        broker = NatsBroker(proxy.url, max_reconnect_attempts=-1, reconnect_time_wait=0.05, error_cb=quiet,
                            apply_types=False, logger=None)  # fmt: skip
        cut = await subscribed(broker, heard)
        rest_while_cut_off(broker, cut, rest)
        await nc.jetstream().publish("cmd.one.a", b"{}")
        await eventually(lambda: heard == ["cmd.one.a"])
        proxy.cut()
        await eventually(lambda: not cut.is_connected and len(rests) > 10, what="what was under way ended")
        before, tasks = cut.pending_data_size, [list(one.tasks) for one in broker.subscribers]  # type: ignore[attr-defined]
        more = len(rests) + 50
        await eventually(lambda: len(rests) > more)
        assert cut.pending_data_size == before
        assert [list(one.tasks) for one in broker.subscribers] == tasks  # type: ignore[attr-defined]
        assert set(rests) == {REST_S}
        proxy.heal()
        for name in ("one", "other"):
            await nc.jetstream().publish(f"cmd.{name}.b", b"{}")
        await eventually(lambda: set(heard) == {"cmd.one.a", "cmd.one.b", "cmd.other.b"}, within_s=30)
        await broker.stop()
