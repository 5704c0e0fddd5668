"""A reader's tables from the copies that services keep: what they have folded is not folded again."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from nats.aio.client import Client

from sparring.catalogue import read_models, services
from sparring.copies import verify
from sparring.errors import LogUnavailable
from sparring.folding import fold
from sparring.log.interface import Log
from sparring.log.jetstream import born
from sparring.projection import Projection
from sparring.service import Service
from sparring.snapshots import Snapshot, Snapshots, projector_version

# fewer facts are folded sooner than the copies of all services are fetched and joined
LEAST = 20_000


async def head_start(nc: Client, log: Log, folder: Path, have: int, target: int) -> Path | None:
    """A file with all services' tables as of `target`; None where folding on from `have` is sooner.

    Each service's newest copy that this build can use is verified and brought up to the target by the log; then all of
    them become one file.
    """
    if target - have < LEAST:
        return None
    readers = [one for one in services() if one.read_models]
    snapshots, files = Snapshots(nc, await born(nc)), [folder / f"{one.name}.duckdb" for one in readers]
    try:
        found = [await _fitting(snapshots, one, have, target) for one in readers]
    except LogUnavailable:
        return None
    if not all(found):
        return None
    for service, copies, file in zip(readers, found, files, strict=True):
        if await snapshots.take(copies, file, partial(_verified, service)) is None:
            return None
    parts = [Projection(file, service.read_models) for service, file in zip(readers, files, strict=True)]
    try:
        await fold(log, [(one, target) for one in parts])
    finally:
        for one in parts:
            one.close()
    return await asyncio.to_thread(_joined, files, folder / "tables.duckdb")


async def _fitting(snapshots: Snapshots, service: Service, have: int, target: int) -> list[Snapshot]:
    """The service's copies that spare a reader at `have` enough, the newest first. Raises LogUnavailable."""
    found = await snapshots.fitting(service.name, "tables", projector_version(service.read_models), target)
    return [one for one in found if one.sequence - have >= LEAST]


async def _verified(service: Service, one: Snapshot, file: Path) -> None:
    await asyncio.to_thread(verify, one, file, service.read_models)


def _joined(files: Sequence[Path], whole: Path) -> Path:
    projection = Projection(whole, read_models())
    con = projection.con
    try:
        for file in files:
            con.execute(f"attach '{file}' as part (read_only)")
            tables = con.execute(
                "select table_name from duckdb_tables() where database_name = 'part' and not temporary"
            ).fetchall()
            for (table,) in tables:
                # some hold rows from their making on; each service has positions of its own
                if table != "positions":
                    con.execute(f'delete from main."{table}"')
                con.execute(f'insert into main."{table}" by name select * from part."{table}"')
            con.execute("detach part")
            file.unlink()
    finally:
        projection.close()
    return whole
