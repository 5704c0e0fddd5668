"""Decided-and-appended facts a second, beside raw publishing in the same run: `uv run python benchmarks/appends.py`.

One server from the wheel with `sync_interval: always`; figures are ratios to raw nats-py publishing of the same bodies.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import nats

from sparring.contracts.base import Fact
from sparring.contracts.training_slots import SlotReleased
from sparring.decider import Decider, Recorded
from sparring.entity_store import Because, EntityStore
from sparring.log import JetStreamLog
from sparring.streams import EVENTS
from sparring.subjects import Ref
from sparring.testing import at, nats_server
from sparring.topology import declare_topology

FACTS = 2_000
IN_FLIGHT = 64


def _count(state: int, _: Recorded) -> int:
    return state + 1


POOL: Decider[int] = Decider("training-slots", "pool", 0, _count)
FACT = SlotReleased(lane="hex5_2p", token=1, held_s=1.0)


async def _timed(work: Callable[[], Awaitable[None]]) -> float:
    start = time.perf_counter()
    await work()
    return FACTS / (time.perf_counter() - start)


async def _rates(url: str) -> dict[str, float]:
    nc = await nats.connect(url)
    await declare_topology(nc)
    js, body = nc.jetstream(timeout=30), FACT.model_dump_json().encode()
    store = EntityStore(JetStreamLog(nc))

    def decide(id: str) -> Callable[[Mapping[Ref, Any]], Sequence[Fact]]:
        return lambda _: [FACT.model_copy(update={"pool": id})]

    async def one(number: int, id: str) -> None:
        await store.execute([(POOL, id)], decide(id), Because("bench", at(0), f"{id}-{number}"), verify=False)

    async def raw() -> None:
        for number in range(FACTS):
            await js.publish(f"evt.training-slots.pool.raw{number}.SlotReleased", body, stream=EVENTS)

    async def raw_pipelined() -> None:
        for first in range(0, FACTS, IN_FLIGHT):
            await asyncio.gather(*(
                js.publish(f"evt.training-slots.pool.pipe{number}.SlotReleased", body, stream=EVENTS)
                for number in range(first, min(FACTS, first + IN_FLIGHT))
            ))  # fmt: skip

    async def appended() -> None:
        for number in range(FACTS):
            await one(number, "main")

    async def appended_pipelined() -> None:
        for id in range(IN_FLIGHT):
            await store.state(POOL, f"e{id}")
        for first in range(0, FACTS, IN_FLIGHT):
            await asyncio.gather(*(one(first + number, f"e{number}") for number in range(IN_FLIGHT)))

    try:
        return {
            "raw publish, one by one": await _timed(raw),
            "decided and appended to one entity": await _timed(appended),
            f"raw publish, {IN_FLIGHT} in flight": await _timed(raw_pipelined),
            f"decided and appended, {IN_FLIGHT} entities in flight": await _timed(appended_pipelined),
        }
    finally:
        await nc.close()


def main() -> None:
    with nats_server() as server:
        assert server.address is not None
        rates = asyncio.run(_rates(server.address.url))
    names = list(rates)
    for name, peer in ((names[0], names[0]), (names[1], names[0]), (names[2], names[2]), (names[3], names[2])):
        print(f"{name:<52} {rates[name]:>8.0f} /s   {rates[name] / rates[peer]:.2f} of raw")


if __name__ == "__main__":
    main()
