"""Decided and appended through the entity store, beside raw publishing.

One server from the wheel with `sync_interval: always`. The peer publishes the same bodies with the same headers to the
same number of subjects through nats-py, without deciding anything and without expecting a sequence. Both run under the
garbage collector's settings of a service.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any

import nats
from rows import Row, ratio_of

from sparring import garbage
from sparring.contracts.base import Fact
from sparring.contracts.training_slots import LaneHeldBack
from sparring.entity_store import Because, EntityStore
from sparring.envelope import Envelope, encode
from sparring.log import JetStreamLog
from sparring.subjects import Ref
from sparring.testing import at, nats_server
from sparring.topology import declare_topology
from training_slots.core.evolve import POOL

FACTS, BATCH = 2_000, 100
IN_FLIGHT = (64, 256)
ROUNDS = 3
FACT = LaneHeldBack(lane="hex5_2p", reason="measured", until=at(1e9))
EXPECTED = "Nats-Expected-Last-Subject-Sequence"


async def _timed(work: Callable[[], Awaitable[None]]) -> float:
    start = time.perf_counter()
    await work()
    return FACTS / (time.perf_counter() - start)


class _Round:
    """One round on fresh entities, so that no peer meets a longer history than the other."""

    def __init__(self, nc: Any, number: int) -> None:
        self.nc, self.js, self.number = nc, nc.jetstream(timeout=30), number
        self.store = EntityStore(JetStreamLog(nc), carry_every=1_000_000)

    def decide(self, id: str, facts: int) -> Callable[[Mapping[Ref, Any]], Sequence[Fact]]:
        # as a service decides: a fact is made, not copied
        return lambda _: [
            LaneHeldBack(pool=id, lane="hex5_2p", reason="measured", until=FACT.until) for _ in range(facts)
        ]

    async def append(self, number: int, id: str, facts: int = 1) -> None:
        because = Because("bench/1", at(number), f"{self.number}-{id}-{number}", correlation="hex5_2p-1")
        await self.store.execute([(POOL, id)], self.decide(id, facts), because)

    def message(self, number: int, id: str) -> tuple[str, dict[str, str], bytes]:
        envelope = Envelope(f"raw-{self.number}-{id}-{number}", "bench/1", at(number), correlation="hex5_2p-1")
        subject, headers, body = encode(FACT.model_copy(update={"pool": id}), envelope)
        # the size of what the log adds; an expectation itself would make it an append
        return (
            subject,
            headers | {"Bench-Expected": "0" * 8, "Bench-Subject": subject, "Nats-Expected-Stream": "EVENTS"},
            body,
        )

    async def publish(self, messages: Sequence[tuple[str, dict[str, str], bytes]], at_once: int) -> None:
        for first in range(0, len(messages), at_once):
            part = messages[first : first + at_once]
            if at_once == 1:
                await self.js.publish(part[0][0], part[0][2], headers=part[0][1])
            else:
                await asyncio.gather(*(self.js.publish(s, body, headers=h) for s, h, body in part))

    async def pipelined(self, at_once: int) -> None:
        for first in range(0, FACTS, at_once):
            count = min(at_once, FACTS - first)
            await asyncio.gather(*(self.append(first, f"{self.number}e{at_once}-{n}") for n in range(count)))

    async def one_by_one(self) -> None:
        for number in range(FACTS):
            await self.append(number, f"{self.number}main")

    async def batched(self) -> None:
        for number in range(FACTS // BATCH):
            await self.append(number, f"{self.number}batch", BATCH)

    async def raw_batched(self, messages: Sequence[tuple[str, dict[str, str], bytes]]) -> None:
        for first in range(0, FACTS, BATCH):
            part = messages[first : first + BATCH]
            for number, (subject, headers, body) in enumerate(part, start=1):
                more = {"Nats-Batch-Id": f"b{self.number}-{first}", "Nats-Batch-Sequence": str(number)}
                if number < len(part):
                    await self.nc.publish(subject, body, headers=headers | more)
                else:
                    await self.nc.request(
                        subject, body, headers=headers | more | {"Nats-Batch-Commit": "1"}, timeout=30
                    )

    async def rates(self) -> dict[str, float]:
        name = str(self.number)
        found = {}
        one = [self.message(n, f"{name}r") for n in range(FACTS)]
        found["raw 1"] = await _timed(partial(self.publish, one, 1))
        found["1"] = await _timed(self.one_by_one)
        for at_once in IN_FLIGHT:
            for n in range(at_once):
                await self.store.state(POOL, f"{name}e{at_once}-{n}")
            many = [self.message(n, f"{name}r{at_once}-{n % at_once}") for n in range(FACTS)]
            found[f"raw {at_once}"] = await _timed(partial(self.publish, many, at_once))
            found[f"{at_once}"] = await _timed(partial(self.pipelined, at_once))
        batch = [self.message(n, f"{name}b") for n in range(FACTS)]
        found["raw batch"] = await _timed(partial(self.raw_batched, batch))
        found["batch"] = await _timed(self.batched)
        return found


async def _rates(url: str) -> dict[str, float]:
    garbage.look_seldom()
    nc = await nats.connect(url)
    await declare_topology(nc)
    try:
        rounds = [await _Round(nc, number).rates() for number in range(ROUNDS)]
    finally:
        await nc.close()
    return {name: sorted(one[name] for one in rounds)[ROUNDS // 2] for name in rounds[0]}


def rows() -> list[Row]:
    with nats_server() as server:
        assert server.address is not None
        rate = asyncio.run(_rates(server.address.url))
    found = [ratio_of("one entity, one by one", rate["1"], "facts/s", rate["raw 1"], "raw publish", least=0.8)]
    found += [
        ratio_of(f"{n} entities in flight", rate[f"{n}"], "facts/s", rate[f"raw {n}"], f"raw publish, {n} in flight", least=0.8)
        for n in IN_FLIGHT
    ]  # fmt: skip
    return [*found, ratio_of(f"batches of {BATCH}", rate["batch"], "facts/s", rate["raw batch"], "raw atomic batches", least=0.8)]  # fmt: skip
