"""A running service's copies of what it has read: given on request, kept in SNAPSHOTS, taken back at a start."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import duckdb
from nats.aio.client import Client
from nats.aio.msg import Msg

from sparring.ending import comes
from sparring.errors import LogUnavailable, SparringError
from sparring.folding import fold
from sparring.hearing import Hearing
from sparring.log.interface import Log
from sparring.projection import Projection
from sparring.read_model import ReadModel
from sparring.snapshots import Snapshot, SnapshotRefused, Snapshots, projector_version
from sparring.subjects import token

EVERY_FACTS = 50_000
EVERY_S = 300.0
# fewer facts are folded sooner than a copy is fetched
WORTH = 2_000
LOOK_S = 1.0


def ask_subject(service: str, replica: str, what: str) -> str:
    """Where a running replica is asked for a copy of its tables, or to take other ones."""
    return f"ask.{service}.{token(replica)}.{what}"


class Copies:
    """Copies of one replica's tables and picture. The tables stand still while they are copied or replaced."""

    def __init__(
        self,
        hearing: Hearing,
        log: Log,
        snapshots: Snapshots,
        service: str,
        models: Sequence[ReadModel],
        folder: Path,
        logger: Any,
    ) -> None:
        self._hearing, self._log, self._snapshots, self._service = hearing, log, snapshots, service
        self._models, self._folder, self._logger = models, folder, logger
        self._version = projector_version(models)
        self._kept_at = 0
        # who is asked for a copy while one is being kept waits: both write the same draft
        self._storing = asyncio.Lock()

    # ---- at the start

    async def restore(self) -> None:
        """Begins at the newest copy that fits, when that saves more than it costs; else the log is folded."""
        hearing = self._hearing
        try:
            end = await self._log.end()
            if hearing.projection is not None and end - hearing.projected >= WORTH:
                await self._restore("tables", end, hearing.projected, self._take_tables)
            if hearing.has_picture and end - hearing.position >= WORTH:
                await self._restore("picture", end, hearing.position, self._take_picture)
        except LogUnavailable as error:
            self._logger.warning("no snapshots; the log is folded instead", error=str(error))
        self._kept_at = hearing.projected

    async def _restore(self, kind: Any, end: int, have: int, take: Callable[[Snapshot, Path], Awaitable[None]]) -> None:
        found = await self._snapshots.fitting(self._service, kind, self._version, end)
        draft = self._folder / f".{kind}.draft"
        try:
            worth = [one for one in found if one.sequence >= have + WORTH]
            taken = await self._snapshots.take(worth, draft, take, self._refused)
        finally:
            draft.unlink(missing_ok=True)
        if taken is not None:
            self._logger.info("began at a snapshot", snapshot=taken.name)

    def _refused(self, one: Snapshot, error: Exception) -> None:
        self._logger.warning("a snapshot was refused", snapshot=one.name, error=str(error))

    async def _take_tables(self, one: Snapshot, draft: Path) -> None:
        await asyncio.to_thread(verify, one, draft, self._models)
        projection = self._hearing.projection
        assert projection is not None
        await asyncio.to_thread(projection.replace_with, draft)
        self._hearing.projected = projection.position

    async def _take_picture(self, one: Snapshot, draft: Path) -> None:
        if not self._hearing.restore(draft.read_text(), one.sequence):
            raise SnapshotRefused(f"{one.name} holds no picture of this build")

    # ---- while it runs

    async def keep(self, leads: Callable[[], bool], stopping: asyncio.Event) -> None:
        """Stores a copy every 50,000 facts, or every 300 s if there is anything new; the holder of the lease does."""
        hearing, waited = self._hearing, 0.0
        while not stopping.is_set():
            if not await comes(stopping, LOOK_S):
                waited += LOOK_S
            fresh = hearing.projected - self._kept_at
            due = fresh >= EVERY_FACTS or (waited >= EVERY_S and fresh >= WORTH)
            if not due or stopping.is_set() or not leads() or hearing.broken:
                continue
            waited = 0.0
            try:
                await self.store()
            except (LogUnavailable, duckdb.Error, OSError) as error:
                # a full disk costs a copy, never the service
                self._logger.warning("no snapshot was kept; the next one is", error=str(error))
                self._kept_at = hearing.projected

    async def store(self) -> Snapshot:
        """Copies the tables and the picture as they are now, and stores them.

        Raises LogUnavailable, and OSError or DuckDB's error when no copy can be made here.
        """
        async with self._storing:
            return await self._stored()

    async def _stored(self) -> Snapshot:
        draft = self._folder / ".copy.draft"
        try:
            if self._hearing.has_picture:
                position, text = self._hearing.written()
                await asyncio.to_thread(draft.write_text, text)
                await self._snapshots.put(self._service, "picture", self._version, position, draft)
            sequence = await self._copy(draft)
            one = await self._snapshots.put(self._service, "tables", self._version, sequence, draft)
        finally:
            draft.unlink(missing_ok=True)
        self._kept_at = one.sequence
        return one

    async def _copy(self, to: Path) -> int:
        async with self._hearing.tables:
            projection = self._hearing.projection
            assert projection is not None
            return await asyncio.to_thread(copy_of, projection, to)

    async def swap(self, one: Snapshot) -> int:
        """Replaces the tables by a rebuilt file, brought up to what this process has read; returns the sequence.

        Raises SnapshotRefused and leaves everything as it was when the file does not fit.
        """
        async with self._storing:
            return await self._swapped(one)

    async def _swapped(self, one: Snapshot) -> int:
        projection, draft = self._hearing.projection, self._folder / ".swap.draft"
        assert projection is not None
        try:
            await self._snapshots.fetch(one, draft)
            await asyncio.to_thread(verify, one, draft, self._models)
            async with self._hearing.tables:
                fresh = await asyncio.to_thread(Projection, draft, self._models)
                try:
                    await fold(self._log, [(fresh, self._hearing.position)])
                finally:
                    await asyncio.to_thread(fresh.close)
                await asyncio.to_thread(projection.replace_with, draft)
                self._hearing.projected, self._hearing.broken = projection.position, ""
        finally:
            draft.unlink(missing_ok=True)
        self._logger.info("the tables were replaced", snapshot=one.name, position=self._hearing.projected)
        return self._hearing.projected

    # ---- on request

    async def serve(self, nc: Client, replica: str) -> None:
        """Answers `ask.<service>.<replica>.CopyTables` and `.SwapTables`."""
        if self._hearing.projection is None:
            return

        async def on_copy(message: Msg) -> None:
            await self._answer(message, self.store)

        async def on_swap(message: Msg) -> None:
            async def swapped() -> Snapshot:
                one = Snapshot(**json.loads(message.data))
                await self.swap(one)
                return one

            await self._answer(message, swapped)

        await nc.subscribe(ask_subject(self._service, replica, "CopyTables"), cb=on_copy)
        await nc.subscribe(ask_subject(self._service, replica, "SwapTables"), cb=on_swap)

    async def _answer(self, message: Msg, do: Callable[[], Awaitable[Snapshot]]) -> None:
        try:
            answer = (await do()).__dict__
        except (SparringError, duckdb.Error, OSError, ValueError, TypeError) as error:
            self._logger.error("a request about the tables failed", subject=message.subject, error=str(error))
            answer = {"error": f"{type(error).__name__}: {error}"}
        await message.respond(json.dumps(answer).encode())


def copy_of(projection: Projection, to: Path) -> int:
    """A consistent copy of an open file, while nobody writes to it; returns its sequence."""
    projection.con.execute("checkpoint")
    shutil.copyfile(str(projection.path), to)
    return projection.position


def verify(one: Snapshot, file: Path, models: Sequence[ReadModel]) -> None:
    """Raises SnapshotRefused unless the file holds these very read models, all of them at the sequence it says."""
    wal = Path(f"{file}.wal")
    wal.unlink(missing_ok=True)
    con = duckdb.connect(str(file), read_only=True)
    try:
        found = con.execute("select model, version, sequence from positions").fetchall()
    finally:
        con.close()
    wanted = {(model.name, model.version, one.sequence) for model in models}
    if set(found) != wanted:
        raise SnapshotRefused(f"{one.name} holds {sorted(found)}, it should hold {sorted(wanted)}")
