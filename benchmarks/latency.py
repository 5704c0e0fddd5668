"""From a fact to the order that a service sends because of it.

A real service process with its reactions' consumer, its picture and its entity store. Both moments are the server's own:
when it stored the fact and when it stored the order. The peer is a nats-py pull consumer that fetches single messages and
publishes the same order with an acknowledgement, without decoding anything. One server, `sync_interval: always`.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import nats
from nats.aio.client import Client
from nats.js import api
from rows import Row, at_most, ratio_of

from sparring.envelope import Envelope, encode
from sparring.log.interface import Expect, Outgoing
from sparring.log.jetstream import JetStreamLog
from sparring.streams import COMMANDS, EVENTS
from sparring.subjects import ref_of
from sparring.testing import at, eventually, nats_server
from sparring.testing.processes import Replica, running
from sparring.topology import declare_topology

HERE = Path(__file__).parent
RATE, SECONDS, BURST = 200, 10, 400
WITHIN_S = 60.0


async def say(nc: Client, name: str, count: int, rate: float) -> None:
    """Appends `count` facts, `rate` a second; 0 is at once."""
    from echo_service import Called

    log, began = JetStreamLog(nc, timeout_s=30), time.perf_counter()

    async def one(number: int) -> None:
        fact = Called(call=f"{name}-{number}")
        subject, headers, body = encode(fact, Envelope(f"{name}-{number}", "bench", at(number)))
        await log.append([Outgoing(subject, headers, body, Expect(ref_of(fact).pattern, 0))], f"{name}-{number}")

    waiting = []
    for number in range(count):
        if rate:
            await asyncio.sleep(max(0.0, began + number / rate - time.perf_counter()))
        waiting.append(asyncio.create_task(one(number)))
    await asyncio.gather(*waiting)


async def delays_ms(nc: Client, name: str, count: int) -> list[float]:
    """Milliseconds between each fact's and its order's moment of storage, sorted."""
    facts = {one.subject.split(".")[3]: one.at for one in await JetStreamLog(nc).load("evt.ext-echo.valley.*.Called")}
    orders = JetStreamLog(nc, stream=COMMANDS)

    async def all_there() -> bool:
        return (
            len([one for one in await orders.load("cmd.ext-echo.wall.*.Echo") if f".{name}-" in one.subject]) >= count
        )

    await eventually(all_there, within_s=WITHIN_S, every_s=0.2)
    found = [one for one in await orders.load("cmd.ext-echo.wall.*.Echo") if f".{name}-" in one.subject]
    return sorted((one.at - facts[one.subject.split(".")[3]]).total_seconds() * 1e3 for one in found)


async def measured(nc: Client, who: str) -> dict[str, list[float]]:
    await say(nc, f"{who}warm", 50, 100)
    await delays_ms(nc, f"{who}warm", 50)
    await say(nc, f"{who}steady", RATE * SECONDS, RATE)
    steady = await delays_ms(nc, f"{who}steady", RATE * SECONDS)
    await say(nc, f"{who}burst", BURST, 0)
    return {"steady": steady, "burst": await delays_ms(nc, f"{who}burst", BURST)}


async def of_service(nc: Client, url: str, folder: Path) -> dict[str, list[float]]:
    with running(Replica(f"{HERE / 'echo_service.py'}:SERVICE", url, folder)):
        js = nc.jetstream()

        async def serves() -> bool:
            with contextlib.suppress(nats.js.errors.NotFoundError):
                return bool((await js.consumer_info(EVENTS, "ext-echo-reactions")).num_waiting)
            return False

        await eventually(serves, within_s=60)
        return await measured(nc, "s")


async def of_raw(nc: Client, url: str) -> dict[str, list[float]]:
    peer = await nats.connect(url)
    js = peer.jetstream()
    config = api.ConsumerConfig(
        durable_name="raw", filter_subject="evt.ext-echo.valley.*.Called", deliver_policy=api.DeliverPolicy.NEW
    )
    await js.add_consumer(EVENTS, config)
    pull = await js.pull_subscribe_bind("raw", EVENTS)

    async def answer() -> None:
        while True:
            with contextlib.suppress(nats.errors.TimeoutError):
                message = (await pull.fetch(1, timeout=1))[0]
                call = message.subject.split(".")[3]
                await js.publish(
                    f"cmd.ext-echo.wall.{call}.Echo", message.data, headers=message.headers and {"ce-id": call}
                )
                await message.ack()

    answering = [asyncio.create_task(answer()) for _ in range(1)]
    try:
        return await measured(nc, "r")
    finally:
        for one in answering:
            one.cancel()
        await peer.close()


async def _both(url: str, folder: Path) -> dict[str, dict[str, list[float]]]:
    nc = await nats.connect(url)
    await declare_topology(nc)
    try:
        steps: list[tuple[str, Callable[[], Awaitable[dict[str, list[float]]]]]] = [
            ("raw", lambda: of_raw(nc, url)), ("service", lambda: of_service(nc, url, folder)),
        ]  # fmt: skip
        return {name: await step() for name, step in steps}
    finally:
        await nc.close()


def share(sorted_values: list[float], of: float) -> float:
    return sorted_values[min(len(sorted_values) - 1, int(of * len(sorted_values)))]


def rows() -> list[Row]:
    with nats_server() as server, tempfile.TemporaryDirectory() as folder:
        assert server.address is not None
        found = asyncio.run(_both(server.address.url, Path(folder)))
    result = []
    for name, words in (("steady", f"{RATE} facts/s"), ("burst", f"a burst of {BURST}")):
        for quantile, part, most in (("p50", 0.5, 5.0), ("p99", 0.99, 25.0)):
            mine, raw = share(found["service"][name], part), share(found["raw"][name], part)
            judged = at_most("", mine, "ms", most)
            beside = ratio_of(f"{words}, {quantile}", mine, "ms", raw, "nats-py alone")
            result.append(Row(**{**vars(beside), "target": judged.target, "met": judged.met}))
    return result
