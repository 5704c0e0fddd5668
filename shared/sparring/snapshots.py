"""Copies of read models in the object store SNAPSHOTS: they make a start cheap, and are never trusted over the log."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gzip
import hashlib
import json
import shutil
import zlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import duckdb
import nats.errors
from nats.aio.client import Client
from nats.js import api
from nats.js.errors import Error as JetStreamError

from sparring import __version__
from sparring.artifacts import CHUNK, sha256_of
from sparring.contracts import fingerprint
from sparring.errors import LogUnavailable, Permanent
from sparring.log.jetstream import JetStreamLog
from sparring.read_model import ReadModel
from sparring.streams import SNAPSHOTS

KEEP = 10
Kind = Literal["tables", "picture"]


class SnapshotRefused(Permanent):
    """The copy is not what it says, or does not fit this log: an older one is tried, at last the log is folded."""


def projector_version(models: Sequence[ReadModel]) -> str:
    """Twelve hex digits that change with anything that could fold the same log into other rows."""
    text = " ".join(f"{model.name}.{model.version}" for model in models)
    return hashlib.sha256(f"{text} {fingerprint()} {__version__}".encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Snapshot:
    """A service's tables (a DuckDB file) or its picture (JSON) as of one sequence of one log."""

    service: str
    kind: Kind
    version: str
    sequence: int
    sha256: str
    log: str

    @property
    def name(self) -> str:
        tail = "" if self.kind == "tables" else f"/{self.kind}"
        return f"{self.service}/{self.version}/{self.sequence}{tail}"


class Snapshots:
    """Put, find, fetch and verify; the last ten of each service are kept. `log` is the identity of the log."""

    def __init__(self, nc: Client, log: str) -> None:
        self._nc, self._js, self.log = nc, nc.jetstream(timeout=10), log

    async def put(self, service: str, kind: Kind, version: str, sequence: int, file: Path) -> Snapshot:
        """Stores the file, packed, and forgets the oldest. Raises LogUnavailable when the server does not take it, and
        OSError when it can't be packed here."""
        sha256, _ = await asyncio.to_thread(sha256_of, file)
        one, packed = Snapshot(service, kind, version, sequence, sha256, self.log), Path(f"{file}.gz")
        try:
            await asyncio.to_thread(pack, file, packed)
            await self._put(one, packed)
        finally:
            packed.unlink(missing_ok=True)
        return one

    async def _put(self, one: Snapshot, packed: Path) -> None:
        meta = api.ObjectMeta(name=one.name, description=json.dumps(asdict(one)))
        try:
            store = await self._js.object_store(SNAPSHOTS)
            with packed.open("rb") as data:
                await store.put(one.name, data, meta=meta)
            for old in (await self._all(one.service, one.kind))[KEEP:]:
                with contextlib.suppress(JetStreamError):
                    await store.delete(old.name)
                    await self._js.purge_stream(f"OBJ_{SNAPSHOTS}", subject=_meta_subject(old.name))
        except (nats.errors.Error, JetStreamError, TimeoutError, OSError) as error:
            raise LogUnavailable(f"snapshot {one.name} was not stored: {error!r}") from error

    async def fitting(self, service: str, kind: Kind, version: str, up_to: int) -> list[Snapshot]:
        """Those of this log and version at or before the sequence, newest first. Raises LogUnavailable."""
        found = await self._all(service, kind)
        return [one for one in found if one.version == version and one.log == self.log and one.sequence <= up_to]

    async def take(
        self,
        copies: Sequence[Snapshot],
        to: Path,
        check: Callable[[Snapshot, Path], Awaitable[None]],
        refused: Callable[[Snapshot, Exception], None] | None = None,
    ) -> Snapshot | None:
        """The first of the copies that is what it says and passes `check`; it lies in `to` then. None when all of them
        were refused. `check` raises SnapshotRefused, or DuckDB's error for a file that it can't read."""
        for one in copies:
            try:
                await self.fetch(one, to)
                await check(one, to)
            except (SnapshotRefused, duckdb.Error) as error:
                if refused is not None:
                    refused(one, error)
            else:
                return one
        return None

    async def fetch(self, one: Snapshot, to: Path) -> None:
        """Writes the copy to `to`. Raises SnapshotRefused when the bytes are not those that were stored."""
        packed = Path(f"{to}.gz")
        try:
            await self._get(one.name, packed)
            await asyncio.to_thread(unpack, packed, to)
            found, _ = await asyncio.to_thread(sha256_of, to)
        except (nats.errors.Error, JetStreamError, TimeoutError, OSError, EOFError, zlib.error) as error:
            raise SnapshotRefused(f"{one.name} could not be read: {error!r}") from error
        finally:
            packed.unlink(missing_ok=True)
        if found != one.sha256:
            raise SnapshotRefused(f"{one.name} has SHA-256 {found[:12]}, it was stored with {one.sha256[:12]}")

    async def _get(self, name: str, to: Path) -> None:
        store = await self._js.object_store(SNAPSHOTS)
        with to.open("wb") as file:
            async with asyncio.timeout(120):
                await store.get(name, writeinto=file)

    async def _all(self, service: str, kind: Kind) -> list[Snapshot]:
        raws = await JetStreamLog(self._nc, stream=f"OBJ_{SNAPSHOTS}").last_of_each(f"$O.{SNAPSHOTS}.M.>")
        found = []
        for raw in raws:
            with contextlib.suppress(ValueError, TypeError, KeyError):
                told: dict[str, Any] = json.loads(raw.body)
                if not told.get("deleted"):
                    found.append(Snapshot(**json.loads(told["description"])))
        fitting = [one for one in found if one.service == service and one.kind == kind]
        return sorted(fitting, key=lambda one: -one.sequence)


def pack(file: Path, packed: Path) -> None:
    """Writes the file as gzip. A DuckDB file shrinks to a tenth or less, so that the server keeps, and a start on an empty
    disk fetches, that much less."""
    with file.open("rb") as plain, gzip.open(packed, "wb", compresslevel=1) as out:
        shutil.copyfileobj(plain, out, CHUNK)


def unpack(packed: Path, file: Path) -> None:
    """Writes what the gzip file holds. Raises OSError, EOFError or zlib.error when it is damaged."""
    with gzip.open(packed, "rb") as plain, file.open("wb") as out:
        shutil.copyfileobj(plain, out, CHUNK)


def _meta_subject(name: str) -> str:
    return f"$O.{SNAPSHOTS}.M.{base64.urlsafe_b64encode(name.encode()).decode()}"
