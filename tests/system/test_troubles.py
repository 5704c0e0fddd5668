"""What befalls a service between an order and its row, in the middle of its story: the end is the same as without it.

One trouble per story in CI; `SPARRING_TROUBLES=full` lets each happen at several places of the story.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import service_stories as stories

from sparring.hearing import whole
from sparring.log.guards import unguarded
from sparring.server import EmbeddedServer, free_port
from sparring.streams import LEASE_TTL_S, TELEMETRY
from sparring.testing import eventually
from sparring.testing.processes import Replica, app_of
from sparring.testing.proxy import Proxy

FULL = os.environ.get("SPARRING_TROUBLES") == "full"
WINDOW_S = 0.2
AT_ONCE = 4
# an append waits five seconds for its answer: with less than that, an order would be delivered five times meanwhile
ACK_WAIT_S = 2.0
# how often at least a planner acts in its story, where that is seldom: the one of the slots ends one lease
ACTS = {"training-slots": 1, "health": 3}


@dataclass
class Scene:
    """A server whose window of deduplication is short, and one or two replicas behind a network that can fail."""

    server: EmbeddedServer
    proxy: Proxy
    stage: Any
    replicas: list[Replica]

    async def restart_server(self) -> None:
        await asyncio.to_thread(self.server.kill)
        await asyncio.to_thread(self.server.start)

    async def partition(self) -> None:
        """Cut off for longer than a lease and than an order waits for its acknowledgement, then back."""
        self.proxy.cut()
        asyncio.get_running_loop().call_later(LEASE_TTL_S + 1, self.proxy.heal)

    async def hear_again(self) -> None:
        """Waits until the answers have stopped, as told, and lets the client come back."""
        await eventually(lambda: self.proxy.deaf, within_s=60, every_s=0.01, what="the word is said")
        await asyncio.sleep(1.0)
        self.proxy.heal()

    async def stand_in(self) -> None:
        """A second replica comes once the first one was stopped."""
        process = self.replicas[0].process
        assert process is not None and process.pid is not None
        stopped = psutil.Process(process.pid)
        await eventually(lambda: stopped.status() == psutil.STATUS_STOPPED, within_s=60, what="the point is reached")
        await asyncio.to_thread(self.replicas[1].start)

    async def wake(self) -> None:
        """The first replica goes on where it was stopped, now that the other one has done the work; until it has seen that."""
        process = self.replicas[0].process
        assert process is not None and process.pid is not None
        os.kill(process.pid, signal.SIGCONT)
        subject, end = f"tel.svc-{self.stage.service}-0.heartbeat", await self.stage.log.end()

        async def caught_up() -> bool:
            beat = await self.stage.js.get_last_msg(TELEMETRY, subject)
            return int(json.loads(beat.data or b"{}")["position"]) >= end

        await eventually(caught_up, within_s=30, every_s=0.1, what="the sleeper has read what happened")


@contextlib.asynccontextmanager
async def scene(service: str, folder: Path, fault: str = "") -> AsyncIterator[Scene]:
    folder.mkdir(parents=True)
    server = EmbeddedServer(folder / "nats", port=free_port())
    address = await asyncio.to_thread(server.start)
    with Proxy(address.url) as proxy:
        stage = await stories.Stage.set(address.url, service, window_s=WINDOW_S, ack_wait_s=ACK_WAIT_S)
        replicas = [Replica(app_of(service), proxy.url, folder / "data", str(number)) for number in (0, 1)]
        try:
            await asyncio.to_thread(replicas[0].start, fault)
            yield Scene(server, proxy, stage, replicas)
        finally:
            for one in replicas:
                one.kill()
            await stage.nc.close()
            server.kill()


async def ended(place: Scene) -> Counter[str]:
    """The end state; every order came once more before, long after the server's own window of deduplication."""
    await place.stage.quiet()
    await place.stage.repeat_all()
    await place.stage.quiet()
    facts = await whole(place.stage.log)
    assert await unguarded(place.stage.log) == []
    return Counter(stories.end_state(facts))


async def undisturbed(service: str, folder: Path) -> Counter[str]:
    async with scene(service, folder) as place:
        await stories.STORIES[service](place.stage)
        await place.stage.quiet()
        return Counter(stories.end_state(await whole(place.stage.log)))


async def befallen(service: str, folder: Path, what: str, turn: int) -> Counter[str]:
    """The server dies, or the service is cut off, before the story's message of that number."""
    async with scene(service, folder) as place:
        place.stage.before[turn] = place.restart_server if what == "the server is killed" else place.partition
        await stories.STORIES[service](place.stage)
        return await ended(place)


async def unanswered(service: str, folder: Path, word: bytes, times: int) -> Counter[str]:
    """What the service publishes is stored, and it never learns that."""
    async with scene(service, folder) as place:
        place.proxy.deafen_at(word, times)
        healing = asyncio.create_task(place.hear_again())
        await stories.STORIES[service](place.stage)
        await healing
        return await ended(place)


async def slept(service: str, folder: Path, fault: str) -> Counter[str]:
    """The service stands still between two steps while another replica does its work, and then goes on."""
    async with scene(service, folder, f"{fault}:stop") as place:
        standing_in = asyncio.create_task(place.stand_in())
        await stories.STORIES[service](place.stage)
        await standing_in
        await place.stage.quiet()
        await place.wake()
        return await ended(place)


def troubles(service: str, folder: Path) -> dict[str, Awaitable[Counter[str]]]:
    """By name, what may befall the service; one place of each in CI."""
    found: dict[str, Awaitable[Counter[str]]] = {}
    for number in range(2, 6 if FULL else 3):
        for what in ("the server is killed", "cut off"):
            found[f"{what} before message {number}"] = befallen(service, folder / f"{what[:3]}{number}", what, number)
        found[f"append {number} unanswered"] = unanswered(service, folder / f"evt{number}", b"PUB evt.", number)
        for point in ("decided", "appended", "reacted"):
            nth = number if point != "reacted" else number - 1
            if point == "reacted" and nth > ACTS.get(service, nth):
                continue
            found[f"asleep at {point}:{nth}"] = slept(service, folder / f"{point}{nth}", f"{point}:{nth}")
    if service not in stories.SILENT:
        found["order unanswered"] = unanswered(service, folder / "cmd", b"PUB cmd.", 1)
    return found


@pytest.mark.parametrize("service", list(stories.STORIES))
@pytest.mark.timeout(900 if FULL else 300)
async def test_a_service_in_trouble_ends_as_if_there_had_been_none(service: str, tmp_path: Path) -> None:
    wanted = await undisturbed(service, tmp_path / "clean")
    found = troubles(service, tmp_path)
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(work: Awaitable[Counter[str]]) -> Counter[str]:
        async with gate:
            return await work

    ends = await asyncio.gather(*(one(work) for work in found.values()), return_exceptions=True)
    wrong = [
        f"{name}: lost {wanted - end}, doubled {end - wanted}" if isinstance(end, Counter) else f"{name}: {end!r}"
        for name, end in zip(found, ends, strict=True)
        if end != wanted
    ]
    assert not wrong, "\n".join(wrong)
