"""A reader begins at the copies that services keep; what it shows is what the log says."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client
from nats.js import api

from sparring import clock, head_start, reader
from sparring.catalogue import services
from sparring.contracts.base import FACTS, Fact
from sparring.envelope import Envelope, encode
from sparring.log import JetStreamLog
from sparring.log.interface import Expect, Outgoing
from sparring.log.jetstream import born
from sparring.place import Place
from sparring.reader import Reader
from sparring.schema_files import sample_path
from sparring.snapshots import Snapshots, projector_version
from sparring.subjects import ref_of
from sparring.testing.copies import keep_copies

READERS = [one for one in services() if one.read_models]
ALL = [one.name for one in services()]
# of the others a second sample would be about what is over
SOME = ("sync", "training-slots")
MARK = {"sync": "update sync_batches set node = 'from the copy'"}
Rows = dict[str, list[tuple[Any, ...]]]


async def every_fact(nc: Client, round: int, owners: Collection[str]) -> int:
    """One fact of every type of the owners, about entities of this round; returns the log's end."""
    log, end = JetStreamLog(nc), 0
    for number, cls in enumerate(FACTS.values()):
        if cls.owner not in owners:
            continue
        fact: Fact = cls.model_validate_json(sample_path(cls).read_text())
        fact = fact.model_copy(update={cls.key: f"{round}-{number}"})
        pattern = ref_of(fact).pattern
        expect = Expect(pattern, await log.last(pattern))
        envelope = Envelope(f"{round}-{number}", "test", clock.now())
        end = (await log.append([Outgoing(*encode(fact, envelope), expect)], ""))[-1]
    return end


async def keep(nc: Client, folder: Path, end: int, mark: Mapping[str, str] | None = None) -> None:
    """As every service would have at sequence `end`, or a little before it."""
    await keep_copies(nc, folder, {one.name: end - back for back, one in enumerate(READERS)}, mark)


async def read(nc: Client, monkeypatch: pytest.MonkeyPatch, cache: Path) -> Rows:
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    async with await Reader.open(Place(nc.connected_url.geturl())) as opened:
        con = opened.projection.con
        tables = [*opened.projection.tables(), "positions"]
        return {name: sorted(con.execute(f"from {name}").fetchall(), key=repr) for name in tables}


async def test_a_reader_that_begins_at_copies_shows_what_one_shows_that_folds_everything(
    nc: Client, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    await keep(nc, tmp_path, await every_fact(nc, 1, ALL))
    await every_fact(nc, 2, SOME)
    folded = await read(nc, monkeypatch, tmp_path / "folded")
    monkeypatch.setattr(head_start, "LEAST", 10)
    assert await read(nc, monkeypatch, tmp_path / "begun") == folded
    assert all(rows for name, rows in folded.items() if name.startswith("sync_"))


async def test_what_a_copy_holds_is_not_folded_again(
    nc: Client, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(head_start, "LEAST", 10)
    monkeypatch.setattr(reader, "SNAPSHOT_AFTER", 10)
    await keep(nc, tmp_path, await every_fact(nc, 1, ALL), MARK)
    await every_fact(nc, 2, SOME)
    cache = tmp_path / "begun"
    nodes = {row[3] for row in (await read(nc, monkeypatch, cache))["sync_batches"]}
    assert "from the copy" in nodes and len(nodes) > 1
    # its own snapshot is newer than the copies now
    assert await read(nc, monkeypatch, cache) == await read(nc, monkeypatch, cache)
    assert len(list((cache / "sparring").rglob("*.duckdb"))) == 1


@pytest.mark.parametrize("harm", ["missing", "damaged", "other build"])
async def test_without_a_copy_that_fits_the_log_is_folded(
    nc: Client, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, harm: str
) -> None:
    monkeypatch.setattr(head_start, "LEAST", 10)
    end = await every_fact(nc, 1, ALL)
    folded = await read(nc, monkeypatch, tmp_path / "folded")
    await keep(nc, tmp_path, end, MARK)
    store = await nc.jetstream().object_store("SNAPSHOTS")
    (sync,) = [one for one in READERS if one.name == "sync"]
    version = projector_version(sync.read_models)
    (kept,) = await Snapshots(nc, await born(nc)).fitting("sync", "tables", version, end)
    if harm == "missing":
        await store.delete(kept.name)
    elif harm == "damaged":
        description = (await store.get_info(kept.name)).description
        await store.put(kept.name, b"not what it was", meta=api.ObjectMeta(name=kept.name, description=description))
    else:
        monkeypatch.setattr(head_start, "projector_version", lambda _: "0" * 12)
    assert await read(nc, monkeypatch, tmp_path / "again") == folded
