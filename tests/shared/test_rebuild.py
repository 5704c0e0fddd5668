"""State is disposable: tables folded anew are equal row by row, copies are verified, the log is trusted alone."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import pytest
import pytest_asyncio
import structlog
from nats.aio.client import Client
from nats.js import api
from typer.testing import CliRunner

from sparring import clock, copies, hearing
from sparring.cli.app import build
from sparring.contracts.training_slots import LaneHeldBack
from sparring.copies import WORTH, Copies, copy_of
from sparring.decider import Recorded
from sparring.envelope import Envelope, encode
from sparring.hearing import Hearing
from sparring.log import JetStreamLog
from sparring.log.interface import Expect, Outgoing
from sparring.projection import Projection
from sparring.server import EmbeddedServer
from sparring.snapshots import KEEP, Snapshot, SnapshotRefused, Snapshots, projector_version
from sparring.subjects import Ref
from sparring.testing import at, eventually
from sparring.testing.processes import Replica, app_of
from training_slots.read_models.slots import SLOTS

MAIN = Ref("training-slots", "pool", "main")
VERSION = projector_version([SLOTS])


async def hold_back(nc: Client, count: int) -> int:
    """So many facts of the pool; returns the log's end."""
    log = JetStreamLog(nc)
    end = await log.last(MAIN.pattern)
    for first in range(0, count, 500):
        batch = []
        for number in range(first, min(count, first + 500)):
            fact = LaneHeldBack(lane=f"lane{number % 50}", reason=f"because {end} {number}", until=at(number))
            envelope = Envelope(f"{end}-{number}", "test", clock.now())
            batch.append(Outgoing(*encode(fact, envelope), Expect(MAIN.pattern, end) if number == first else None))
        end = (await log.append(batch, f"batch-{end}-{first}"))[-1]
    return end


class Sum:
    """A picture that counts."""

    def __init__(self) -> None:
        self.facts = 0

    def apply(self, recorded: Recorded) -> None:
        self.facts += 1

    def dump(self) -> Any:
        return {"facts": self.facts}

    def text(self) -> str:
        return json.dumps(self.dump())

    def load(self, data: Any) -> None:
        self.facts = int(data["facts"])


class Reading:
    """A replica that reads: tables, picture and copies, without a service around them."""

    def __init__(self, nc: Client, folder: Path, log: str = "log") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.file = folder / "read.duckdb"
        self.hearing = Hearing(JetStreamLog(nc), Sum, lambda: Projection(self.file, [SLOTS]), checkpoint=None, identity="i",
                               logger=structlog.get_logger())  # fmt: skip
        self.snapshots = Snapshots(nc, log)
        self.copies = Copies(self.hearing, JetStreamLog(nc), self.snapshots, "training-slots", [SLOTS], folder,
                             structlog.get_logger())  # fmt: skip

    async def begin(self) -> int:
        """The sequence at which it starts."""
        await self.hearing.prepare()
        await self.copies.restore()
        return self.hearing.projected

    async def read_to(self, end: int) -> None:
        stopping = asyncio.Event()
        running = asyncio.create_task(self.hearing.run(stopping))
        await eventually(lambda: self.hearing.projected >= end)
        stopping.set()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    def rows(self) -> list[tuple[Any, ...]]:
        assert self.hearing.projection is not None
        con = self.hearing.projection.con
        return sorted(
            (row for name in self.hearing.projection.tables() for row in con.execute(f"from {name}").fetchall()),
            key=repr,
        )


@pytest_asyncio.fixture
async def kept(nc: Client, tmp_path: Path) -> AsyncIterator[Reading]:
    """One that read more than a copy is worth, and stored it."""
    one = Reading(nc, tmp_path / "first")
    await one.begin()
    await one.read_to(await hold_back(nc, WORTH + 100))
    await one.copies.store()
    yield one
    one.hearing.close()


async def test_a_replica_with_a_fresh_disk_begins_at_the_newest_copy(nc: Client, kept: Reading, tmp_path: Path) -> None:
    end = await hold_back(nc, 40)
    fresh = Reading(nc, tmp_path / "second")
    assert await fresh.begin() == WORTH + 100
    assert fresh.hearing.position == WORTH + 100
    await fresh.read_to(end)
    await kept.read_to(end)
    assert fresh.rows() == kept.rows()
    assert fresh.hearing.picture.facts == end  # type: ignore[attr-defined]
    fresh.hearing.close()


async def test_a_copy_is_never_trusted_over_the_log(nc: Client, kept: Reading, tmp_path: Path) -> None:
    """Damaged bytes, another log, other read models, a sequence that the log has not: each is refused."""
    snapshots = kept.snapshots
    (good,) = await snapshots.fitting("training-slots", "tables", VERSION, 10**9)
    other = tmp_path / "other"
    with pytest.raises(SnapshotRefused, match="SHA-256"):
        await snapshots.fetch(replace(good, sha256="0" * 64), other)
    assert await Snapshots(nc, "another log").fitting("training-slots", "tables", VERSION, 10**9) == []
    assert await snapshots.fitting("training-slots", "tables", "other", 10**9) == []
    assert await snapshots.fitting("training-slots", "tables", VERSION, good.sequence - 1) == []
    # a copy that lies about what it holds
    await snapshots.fetch(good, other)
    con = duckdb.connect(str(other))
    con.execute("update positions set sequence = sequence - 7")
    con.close()
    await hold_back(nc, 10)
    await snapshots.put("training-slots", "tables", VERSION, good.sequence + 5, other)
    fresh = Reading(nc, tmp_path / "second")
    assert await fresh.begin() == good.sequence, "the older, honest one"
    fresh.hearing.close()


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "cut off": lambda packed: packed[:-20],
    "overwritten": lambda packed: packed[:200] + bytes(100) + packed[300:],
    "not packed": lambda packed: gzip.decompress(packed),
    "other content": lambda _: gzip.compress(b"other"),
}


@pytest.mark.parametrize("damage", DAMAGES)
async def test_damaged_bytes_are_refused_and_leave_no_file_behind(
    nc: Client, kept: Reading, tmp_path: Path, damage: str
) -> None:
    (good,) = await kept.snapshots.fitting("training-slots", "tables", VERSION, 10**9)
    store = await nc.jetstream().object_store("SNAPSHOTS")
    stored = await store.get(good.name)
    assert stored.data and stored.info.description
    meta = api.ObjectMeta(name=good.name, description=stored.info.description)
    await store.put(good.name, DAMAGES[damage](stored.data), meta=meta)
    folder = tmp_path / "second"
    fresh = Reading(nc, folder)
    assert await fresh.begin() == 0, "the log is folded"
    assert not [file for file in folder.rglob("*") if "draft" in file.name]
    fresh.hearing.close()


async def test_a_copy_takes_a_fraction_of_its_file(nc: Client, kept: Reading, tmp_path: Path) -> None:
    (good,) = await kept.snapshots.fitting("training-slots", "tables", VERSION, 10**9)
    file = tmp_path / "copy"
    await kept.snapshots.fetch(good, file)
    stored = await (await nc.jetstream().object_store("SNAPSHOTS")).get_info(good.name)
    assert stored.size is not None and stored.size < file.stat().st_size / 2
    assert [one.name for one in tmp_path.iterdir() if one.is_file()] == ["copy"]


async def test_the_last_ten_copies_are_kept(nc: Client, kept: Reading, tmp_path: Path) -> None:
    (good,) = await kept.snapshots.fitting("training-slots", "tables", VERSION, 10**9)
    file = tmp_path / "copy"
    await kept.snapshots.fetch(good, file)
    for number in range(KEEP + 3):
        await kept.snapshots.put("training-slots", "tables", VERSION, good.sequence + 1 + number, file)
    found = await kept.snapshots.fitting("training-slots", "tables", VERSION, 10**9)
    assert [one.sequence for one in found] == [good.sequence + KEEP + 3 - number for number in range(KEEP)]


async def test_swapped_tables_go_on_where_the_process_stands(nc: Client, kept: Reading) -> None:
    (good,) = await kept.snapshots.fitting("training-slots", "tables", VERSION, 10**9)
    end = await hold_back(nc, 30)
    await kept.read_to(end)
    before = kept.rows()
    assert kept.hearing.projection is not None
    kept.hearing.projection.con.execute("update slots_holds set reason = 'wrong'")
    assert await kept.copies.swap(good) == end
    assert kept.rows() == before


async def test_copies_that_are_asked_for_while_one_is_kept_do_not_take_each_others_draft(
    kept: Reading, monkeypatch: pytest.MonkeyPatch
) -> None:
    put, busy, most = kept.snapshots.put, list[int](), list[int]()

    async def counted(*args: Any) -> Snapshot:
        busy.append(1)
        most.append(len(busy))
        done = await put(*args)
        busy.pop()
        return done

    monkeypatch.setattr(kept.snapshots, "put", counted)
    found = await asyncio.gather(*(kept.copies.store() for _ in range(4)))
    assert {one.sequence for one in found} == {kept.hearing.projected}
    assert max(most) == 1


async def test_a_full_disk_costs_a_checkpoint_and_tables_and_picture_go_on(
    nc: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = list[int]()

    def full(self: Hearing, _: str) -> None:
        tries.append(self.position)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Hearing, "save", full)
    monkeypatch.setattr(hearing, "FLUSH_S", 0.01)
    monkeypatch.setattr(hearing, "CHECKPOINT_S", 0.01)
    one = Reading(nc, tmp_path / "first")
    await one.begin()
    stopping = asyncio.Event()
    running = asyncio.create_task(one.hearing.run(stopping))
    await eventually(lambda: tries)
    end = await hold_back(nc, 30)
    await eventually(lambda: one.hearing.projected >= end and one.hearing.position >= end)
    stopping.set()
    await hold_back(nc, 1)
    await running
    assert (one.hearing.stuck, one.hearing.broken) == ("", "")
    one.hearing.close()


async def test_a_full_disk_costs_a_copy_and_never_the_service(
    nc: Client, kept: Reading, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries, stopping = list[int](), asyncio.Event()

    def full(projection: Projection, to: Path) -> int:
        tries.append(projection.position)
        if len(tries) == 1:
            raise OSError(28, "No space left on device", str(to))
        return copy_of(projection, to)

    monkeypatch.setattr(copies, "copy_of", full)
    monkeypatch.setattr(copies, "EVERY_FACTS", 10)
    monkeypatch.setattr(copies, "LOOK_S", 0.02)
    keeping = asyncio.create_task(kept.copies.keep(lambda: True, stopping))
    await kept.read_to(await hold_back(nc, 20))
    await eventually(lambda: tries)
    end = await hold_back(nc, 20)
    await kept.read_to(end)

    async def newest() -> bool:
        return (await kept.snapshots.fitting("training-slots", "tables", VERSION, end))[0].sequence == end

    await eventually(newest)
    stopping.set()
    await keeping
    assert len(tries) >= 2


# ---- the command


def spar(server: EmbeddedServer, *words: str) -> tuple[int, str]:
    assert server.address is not None
    done = CliRunner().invoke(build(), [*words, "--nats", server.address.url])
    return done.exit_code, done.output


@pytest.mark.timeout(120)
async def test_rebuild_compares_every_row_and_names_the_first_difference(
    server: EmbeddedServer, nc: Client, tmp_path: Path
) -> None:
    assert server.address is not None
    service = Replica(app_of("training-slots"), server.address.url, tmp_path / "data").start()
    words = ("rebuild", "training-slots", "--check", "--data", str(tmp_path / "data"))
    try:
        end = await hold_back(nc, 100)

        async def equal() -> bool:
            code, text = await asyncio.to_thread(spar, server, *words)
            return code == 0 and "every row is equal" in text and f"at {end + 1}" in text

        # one more fact than these: the service's own settings
        await eventually(equal, within_s=40, every_s=0.3, what="running, it is asked for a copy")
        await asyncio.to_thread(service.stop)
        file = next((tmp_path / "data").rglob("read-*.duckdb"))
        con = duckdb.connect(str(file))
        con.execute("update slots_holds set reason = 'forged' where lane = 'lane7'")
        con.close()
        code, text = await asyncio.to_thread(spar, server, *words)
        assert code == 1
        assert "slots_holds" in text and "lane7" in text and "column reason" in text and "forged" in text
        code, text = await asyncio.to_thread(spar, server, *words, "--swap", "--json")
        assert json.loads(text)["services"][0]["difference"]["column"] == "reason"
        code, text = await asyncio.to_thread(spar, server, *words)
        assert code == 0, text
        service.start()
        await hold_back(nc, 5)
        await eventually(lambda: asyncio.to_thread(lambda: spar(server, *words)[0] == 0), within_s=40, every_s=0.3)
    finally:
        service.kill()
