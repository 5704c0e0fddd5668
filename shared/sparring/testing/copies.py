"""Copies in SNAPSHOTS as the services would have kept them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from nats.aio.client import Client

from sparring.catalogue import services
from sparring.folding import fold
from sparring.log import JetStreamLog
from sparring.log.jetstream import born
from sparring.projection import Projection
from sparring.snapshots import Snapshots, projector_version


async def keep_copies(nc: Client, folder: Path, ends: Mapping[str, int], mark: Mapping[str, str] | None = None) -> None:
    """Each service's tables as of the sequence given for it; `mark` is SQL that makes a service's copy recognisable."""
    readers = [one for one in services() if one.read_models]
    parts = {one.name: Projection(folder / f"{one.name}-{ends[one.name]}.copy", one.read_models) for one in readers}
    await fold(JetStreamLog(nc), [(part, ends[name]) for name, part in parts.items()])
    snapshots = Snapshots(nc, await born(nc))
    for one in readers:
        part = parts[one.name]
        if mark and one.name in mark:
            part.con.execute(mark[one.name])
        part.con.execute("checkpoint")
        position, file = part.position, Path(part.path)
        part.close()
        await snapshots.put(one.name, "tables", projector_version(one.read_models), position, file)
