"""One behaviour suite for both homes of the log."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from nats.aio.client import Client

from sparring.errors import LogUnavailable, LostRace, RepeatedBatch
from sparring.log import Expect, JetStreamLog, Log, MemoryLog, Outgoing, Raw, jetstream
from sparring.log.interface import Unguarded
from sparring.server import EmbeddedServer
from sparring.testing import eventually

SLOT = "evt.training-slots.pool.main.>"
OTHER = "evt.training-slots.pool.other.>"


def message(
    id: str, expect: Expect | None = None, subject: str = "evt.training-slots.pool.main.SlotClaimed"
) -> Outgoing:
    return Outgoing(subject, {"Nats-Msg-Id": id}, id.encode(), expect)


@pytest_asyncio.fixture(params=["memory", "jetstream"])
async def log(request: pytest.FixtureRequest, nc: Client) -> AsyncIterator[Log]:
    yield MemoryLog() if request.param == "memory" else JetStreamLog(nc)


async def test_an_empty_entity_ends_at_zero(log: Log) -> None:
    assert await log.last(SLOT) == 0
    assert await log.load(SLOT) == []


async def test_an_append_on_the_sequence_that_was_read_succeeds(log: Log) -> None:
    assert await log.append([message("a", Expect(SLOT, 0))], "1") == [1]
    assert await log.append([message("b", Expect(SLOT, 1))], "2") == [2]
    assert [raw.body for raw in await log.load(SLOT)] == [b"a", b"b"]


async def test_an_append_on_an_older_sequence_is_refused(log: Log) -> None:
    await log.append([message("a", Expect(SLOT, 0))], "1")
    with pytest.raises(LostRace):
        await log.append([message("b", Expect(SLOT, 0))], "2")
    assert await log.last(SLOT) == 1


async def test_other_entities_do_not_disturb_an_expectation(log: Log) -> None:
    await log.append([message("a", Expect(OTHER, 0), "evt.training-slots.pool.other.SlotClaimed")], "1")
    assert await log.append([message("b", Expect(SLOT, 0))], "2") == [2]


async def test_a_batch_over_two_entities_is_all_or_nothing(log: Log) -> None:
    await log.append([message("a", Expect(OTHER, 0), "evt.training-slots.pool.other.SlotClaimed")], "1")
    stale = [message("b", Expect(SLOT, 0)), message("c", Expect(OTHER, 0), "evt.training-slots.pool.other.SlotClaimed")]
    with pytest.raises(LostRace):
        await log.append(stale, "2")
    assert await log.last(SLOT) == 0
    good = [message("b", Expect(SLOT, 0)), message("c", Expect(OTHER, 1), "evt.training-slots.pool.other.SlotClaimed")]
    assert await log.append(good, "3") == [2, 3]


async def test_a_message_id_is_appended_once(log: Log) -> None:
    await log.append([message("a", Expect(SLOT, 0))], "1")
    with pytest.raises(RepeatedBatch):
        await log.append([message("a", Expect(SLOT, 1))], "2")
    assert await log.end() == 1


@pytest.mark.parametrize("guard", [None, Expect("evt.training-slots.pool.>", 0), Expect(OTHER, 0)])
async def test_no_append_without_its_entitys_one_pattern(log: Log, guard: Expect | None) -> None:
    with pytest.raises(Unguarded):
        await log.append([message("a", guard)], "1")
    assert await log.end() == 0


async def test_a_refused_message_id_is_free_again(log: Log) -> None:
    await log.append([message("a", Expect(SLOT, 0))], "1")
    with pytest.raises(LostRace):
        await log.append([message("b", Expect(SLOT, 0))], "2")
    assert await log.append([message("b", Expect(SLOT, 1))], "3") == [2]


async def test_load_starts_behind_a_sequence(log: Log) -> None:
    for number in range(5):
        await log.append([message(str(number), Expect(SLOT, number))], str(number))
    assert [raw.sequence for raw in await log.load(SLOT, after=3)] == [4, 5]


async def collect(log: Log, after: int, count: int, filters: tuple[str, ...] = ()) -> list[Raw]:
    found: list[Raw] = []
    async for batch in log.follow(after, filters):
        found += batch
        if len(found) >= count:
            break
    return found


@pytest.mark.parametrize("near", [10**9, -1])
async def test_an_entity_far_from_the_logs_end_is_loaded_whole_and_nothing_behind_it_is_looked_through(
    nc: Client, monkeypatch: pytest.MonkeyPatch, near: int
) -> None:
    """Ten million facts later the server read every block behind the entity's last message, for half a minute."""
    monkeypatch.setattr(jetstream, "NEAR_THE_END", near)
    monkeypatch.setattr(jetstream, "LOAD_BATCH", 4)
    log, rng, own = JetStreamLog(nc), random.Random(7), dict[str, list[int]]()
    for number in range(60):
        name = rng.choice("aaaaabbcd")
        kind, pattern = rng.choice("XYZ"), f"evt.training-slots.pool.{name}.>"
        expect = Expect(pattern, (own.get(name) or [0])[-1])
        own.setdefault(name, []).extend(await log.append([message(str(number), expect, f"{pattern[:-1]}{kind}")], ""))
    asked, get = list[int](), log._direct_get

    async def counted(query: dict[str, Any]) -> tuple[list[Raw], bool]:
        part, more = await get(query)
        asked.append(query["batch"] - len(part))
        return part, more

    monkeypatch.setattr(log, "_direct_get", counted)
    for name, sequences in own.items():
        for after in (0, *sequences):
            found = await log.load(f"evt.training-slots.pool.{name}.>", after)
            assert [raw.sequence for raw in found] == [one for one in sequences if one > after]
    assert (sum(asked) == 0) is (near < 0), "nothing was asked for that is not there"
    fresh = JetStreamLog(nc)
    assert [raw.sequence for raw in await fresh.load("evt.training-slots.pool.a.>")] == own["a"]


async def test_following_skips_nothing_and_repeats_nothing(log: Log) -> None:
    for number in range(300):
        await log.append([message(str(number), Expect(SLOT, number))], str(number))
    assert [raw.sequence for raw in await collect(log, 0, 300)] == list(range(1, 301))
    assert [raw.sequence for raw in await collect(log, 290, 10)] == list(range(291, 301))


async def test_following_can_hear_some_subjects_only(log: Log) -> None:
    await log.append([message("a", Expect(SLOT, 0))], "1")
    await log.append([message("b", Expect(OTHER, 0), "evt.training-slots.pool.other.SlotReleased")], "2")
    found = await collect(log, 0, 1, ("evt.*.*.*.SlotReleased",))
    assert [raw.body for raw in found] == [b"b"]


async def appended(log: Log, number: int) -> bool:
    """Whether the message is in the log, however often it takes to hear so."""
    try:
        await log.append([message(str(number), Expect(SLOT, number))], str(number))
    except (RepeatedBatch, LostRace):
        return True
    except LogUnavailable:
        return False
    return True


async def test_a_feed_goes_on_after_the_server_was_killed(server: EmbeddedServer, nc: Client) -> None:
    assert server.address is not None
    log = JetStreamLog(nc, timeout_s=1)
    found: list[int] = []

    async def follow() -> None:
        async for batch in log.follow(0):
            found.extend(raw.sequence for raw in batch)

    following = asyncio.create_task(follow())
    for number in range(20):
        await log.append([message(str(number), Expect(SLOT, number))], str(number))
    await eventually(lambda: len(found) == 20)
    port = int(server.address.url.rpartition(":")[2])
    server.kill()
    again = EmbeddedServer(server.folder, port=port)
    again.start()
    try:
        for number in range(20, 40):
            await eventually(lambda number=number: appended(log, number), within_s=30)
        await eventually(lambda: len(found) >= 40, within_s=30)
        assert found == list(range(1, 41))
    finally:
        following.cancel()
        again.kill()
