"""What is told to end ends, also when what it waited for comes in that very moment."""

from __future__ import annotations

import asyncio

import pytest
from nats.aio.client import Client

from sparring.ending import CalledOff, ended, unless
from sparring.log.feed import Feed
from sparring.testing import eventually


async def deaf(once: list[str]) -> None:
    """As nats-py under Python 3.11: a cancellation that comes together with an answer is dropped."""
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            if once:
                raise
            once.append("not heard")


@pytest.mark.timeout(20)
async def test_a_task_that_did_not_hear_the_first_time_is_told_again() -> None:
    once: list[str] = []
    one, failed = asyncio.create_task(deaf(once)), asyncio.create_task(asyncio.to_thread(int, "x"))
    await asyncio.sleep(0)
    await ended(one, failed, again_s=0.01)
    assert one.cancelled() and once == ["not heard"] and failed.done()


@pytest.mark.timeout(20)
@pytest.mark.parametrize("steps", range(6))
async def test_a_feed_that_is_told_to_end_while_a_message_comes_ends(nc: Client, steps: int) -> None:
    feed = Feed(nc, "EVENTS", 0, [])
    await feed._open()
    waiting = asyncio.create_task(feed._wait())
    await eventually(lambda: len(feed._something._waiters) == 1)
    feed._something.set()
    for _ in range(steps):
        await asyncio.sleep(0)
    over = waiting.done()
    waiting.cancel()
    await asyncio.wait((waiting,))
    # what was over before has nothing left to be told
    assert over or waiting.cancelled()
    await feed.close()


async def test_what_is_stopped_before_its_end_is_cancelled_and_what_fails_is_heard() -> None:
    stop, told = asyncio.Event(), list[str]()

    async def endless() -> int:
        try:
            await asyncio.Event().wait()
        finally:
            told.append("cancelled")
        return 1

    waiting = asyncio.create_task(unless(stop, endless()))
    await asyncio.sleep(0)
    stop.set()
    with pytest.raises(CalledOff):
        await waiting
    assert told == ["cancelled"]

    async def seven() -> int:
        return 7

    assert await unless(asyncio.Event(), seven()) == 7
