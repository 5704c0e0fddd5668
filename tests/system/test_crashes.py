"""Killed at every step between an order and its row, started again: the end is the same as without the kill."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from pathlib import Path

import pytest
import service_stories as stories

from sparring.hearing import whole
from sparring.testing import nats_server
from sparring.testing.processes import Replica, app_of

POINTS = ("loaded", "loaded:3", "decided", "decided:3", "appended", "appended:3", "reacted", "reacted:2", "published",
          "published:2", "acked", "projected")  # fmt: skip

# a pool of slots sends nothing: whoever waits is served in the same decision; its planner only ends the one lease. Health's
# planner has one thing to do in its story, and does it at once
NEVER = {("training-slots", "published"), ("training-slots", "published:2"), ("training-slots", "reacted:2"),
         ("health", "published:2"), ("health", "reacted:2")}  # fmt: skip


async def keep_alive(replica: Replica, fault: str, deaths: list[int], over: asyncio.Event) -> None:
    """Starts the service again as a supervisor does, until the story is told; without the fault once it died of it."""
    while not over.is_set():
        if not replica.running:
            assert replica.process is not None and replica.process.exitcode is not None
            deaths.append(replica.process.exitcode)
            await asyncio.to_thread(replica.start, "" if deaths else fault)
        await asyncio.sleep(0.02)


async def told(service: str, fault: str, folder: Path) -> tuple[Counter[str], list[int]]:
    """The story's end state, and with which codes the service ended on the way."""
    with nats_server() as server:
        assert server.address is not None
        stage = await stories.Stage.set(server.address.url, service)
        replica, deaths = Replica(app_of(service), server.address.url, folder), list[int]()
        await asyncio.to_thread(replica.start, fault)
        over = asyncio.Event()
        watching = asyncio.create_task(keep_alive(replica, fault, deaths, over))
        try:
            await stories.STORIES[service](stage)
            if fault:
                # the story's last fact is in the log before the process has heard that it is
                await stories.eventually(lambda: bool(deaths), within_s=60, what=f"{service} passes {fault}")
                await stories.eventually(lambda: replica.running, within_s=60)
            await stage.quiet()
        finally:
            # a start that is under way ends first
            over.set()
            await watching
            await asyncio.to_thread(replica.stop)
        raws = [raw async for batch in _all(stage) for raw in batch]
        stood = stories.same_rows_as_rebuilt(service, folder, raws)
        # others may be stopped before they have written any row
        assert stood > 0 or not fault.startswith("projected")
        end = stories.end_state(await whole(stage.log))
        await stage.nc.close()
        return end, deaths


async def _all(stage):  # type: ignore[no-untyped-def]
    end = await stage.log.end()
    async for batch in stage.log.follow(0):
        yield batch
        if batch and batch[-1].sequence >= end:
            return


@pytest.mark.parametrize("service", list(stories.STORIES))
@pytest.mark.timeout(300)
async def test_a_service_killed_at_any_step_ends_as_if_it_had_not_been(service: str, tmp_path: Path) -> None:
    clean, deaths = await told(service, "", tmp_path / "clean")
    assert deaths == []
    points = [one for one in POINTS if (service, one) not in NEVER]
    for some in (points[:6], points[6:]):
        ends = await asyncio.gather(*(told(service, one, tmp_path / one.replace(":", "-")) for one in some))
        for point, (end, died) in zip(some, ends, strict=True):
            assert died == [-signal.SIGKILL], f"{service} was to be killed at {point}"
            assert end == clean, f"killed at {point}: lost {clean - end}, doubled {end - clean}"
