"""A process that hears nothing more ends or mends itself: it never looks alive and is deaf."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pytest
import structlog

from sparring import hearing
from sparring.artifacts import StoreUnavailable
from sparring.contracts.training_slots import LaneHeldBack
from sparring.decider import Recorded
from sparring.envelope import Envelope, encode
from sparring.errors import LogUnavailable, Undecodable
from sparring.hearing import Hearing
from sparring.log import MemoryLog, Raw
from sparring.log.interface import Expect, Outgoing
from sparring.projection import Projection
from sparring.subjects import Ref
from sparring.testing import at, eventually
from training_slots.read_models.slots import SLOTS

MAIN = Ref("training-slots", "pool", "main")
Apply = Callable[..., None]


async def hold_back(log: MemoryLog, lane: str) -> int:
    """A fact of the pool; returns its sequence."""
    end = await log.last(MAIN.pattern)
    fact = LaneHeldBack(lane=lane, reason=f"because {end}", until=at(end))
    envelope = Envelope(f"{lane}-{end}", "test", at(end))
    return (await log.append([Outgoing(*encode(fact, envelope), Expect(MAIN.pattern, end))], ""))[-1]


class Lanes:
    """A picture of the lanes in the order in which they were held back."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def apply(self, recorded: Recorded) -> None:
        assert isinstance(recorded.fact, LaneHeldBack)
        if recorded.fact.lane == "unthought-of":
            raise ZeroDivisionError("a bug in a fold")
        self.seen.append(recorded.fact.lane)

    def dump(self) -> Any:
        return self.seen

    def text(self) -> str:
        return json.dumps(self.seen)

    def load(self, data: Any) -> None:
        self.seen = list(data)


def hearing_of(log: MemoryLog, folder: Path) -> Hearing:
    return Hearing(log, Lanes, lambda: Projection(folder / "read.duckdb", [SLOTS]), checkpoint=folder / "picture.json",
                   identity="i", logger=structlog.get_logger())  # fmt: skip


def rows(one: Hearing) -> list[Any]:
    assert one.projection is not None
    return one.projection.con.execute("select lane, reason from slots_holds order by lane").fetchall()


def fails(error: Exception, times: int) -> Apply:
    """`Projection.apply` that raises so many times, and then does what it should."""
    whole, left = Projection.apply, [error] * times

    def apply(self: Projection, batch: Sequence[Raw], **options: Any) -> None:
        if left:
            raise left.pop()
        whole(self, batch, **options)

    return apply


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hearing, "FLUSH_S", 0.01)
    monkeypatch.setattr(hearing, "FIRST_PAUSE_S", 0.01)


async def in_time(run: Coroutine[Any, Any, None]) -> None:
    """It ends by itself; what it raises is raised."""
    running = asyncio.create_task(run)
    await eventually(running.done)
    await running


async def test_a_picture_with_a_bug_ends_the_process_and_is_not_saved(tmp_path: Path) -> None:
    log = MemoryLog()
    one = hearing_of(log, tmp_path)
    await one.prepare()
    await hold_back(log, "hex")
    await hold_back(log, "unthought-of")
    with pytest.raises(ZeroDivisionError):
        await in_time(one.run(asyncio.Event()))
    assert not (tmp_path / "picture.json").exists()
    one.close()


async def test_tables_with_a_bug_end_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Projection, "apply", fails(ZeroDivisionError(), 1))
    log = MemoryLog()
    one = hearing_of(log, tmp_path)
    await one.prepare()
    await hold_back(log, "hex")
    with pytest.raises(ZeroDivisionError):
        await in_time(one.run(asyncio.Event()))
    one.close()


class BeatingLog(MemoryLog):
    """Hands on empty batches while nothing happens, as a server's log does."""

    async def follow(self, after: int, filters: Sequence[str] = ()) -> AsyncIterator[list[Raw]]:
        while True:
            fresh = [raw for raw in self._messages if raw.sequence > after]
            after += len(fresh)
            yield fresh
            await asyncio.sleep(0.005)


class SilentLog(MemoryLog):
    """Can't be followed so many times: its leader is being elected."""

    silent = 0
    error: Exception = LogUnavailable("no leader")

    async def follow(self, after: int, filters: Sequence[str] = ()) -> AsyncIterator[list[Raw]]:
        self.silent -= 1
        if self.silent >= 0:
            raise self.error
        async for batch in super().follow(after, filters):
            yield batch


@pytest.mark.parametrize("error", [LogUnavailable("no leader"), StoreUnavailable("no segment")])
async def test_a_log_that_does_not_answer_is_asked_again_and_after_a_while_the_process_is_not_ready(
    tmp_path: Path, error: Exception
) -> None:
    log, stopping = SilentLog(), asyncio.Event()
    log.silent, log.error = 10_000, error
    one = hearing_of(log, tmp_path)
    await one.prepare()
    end = await hold_back(log, "hex")
    running = asyncio.create_task(one.run(stopping))
    await eventually(lambda: one.trouble == f"log: {error}")
    log.silent = 0
    await eventually(lambda: one.projected == end)
    assert one.trouble == ""
    stopping.set()
    await running
    assert rows(one) == [("hex", "because 0")]
    one.close()


@pytest.mark.parametrize("times", [1, 3])
async def test_tables_that_a_full_disk_stopped_go_on_and_miss_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    monkeypatch.setattr(Projection, "apply", fails(duckdb.IOException("No space left on device"), times))
    log, stopping = BeatingLog(), asyncio.Event()
    one = hearing_of(log, tmp_path)
    await one.prepare()
    running = asyncio.create_task(one.run(stopping))
    lanes = list[str]()
    for number in range(times + 1):
        # these are dropped while the tables stand still
        lanes.append(f"lane{number}")
        await hold_back(log, lanes[-1])
        await eventually(lambda: one.picture.seen == lanes)  # type: ignore[attr-defined]
        await eventually(lambda: one.broken or one.projected == len(lanes))
    one_more = await hold_back(log, "last")
    await eventually(lambda: one.projected == one_more and not one.trouble)
    stopping.set()
    await running
    assert rows(one) == [(lane, f"because {n}") for n, lane in enumerate([*lanes, "last"])]
    assert one.picture.seen == [*lanes, "last"]  # type: ignore[attr-defined]
    one.close()


async def test_no_fact_reaches_the_tables_past_one_that_they_cannot_take_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Projection, "apply", fails(Undecodable("of a newer build"), 1))
    log, stopping = MemoryLog(), asyncio.Event()
    one = hearing_of(log, tmp_path)
    await one.prepare()
    await hold_back(log, "hex")
    running = asyncio.create_task(one.run(stopping))
    await eventually(lambda: one.stuck == "Undecodable: of a newer build")
    await hold_back(log, "go")
    stopping.set()
    await running
    assert (one.projected, rows(one)) == (0, [])
    one.close()
