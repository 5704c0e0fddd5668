"""The games that this node holds: kept until the store's copy was verified, brought there at the granted rate."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from node_agent.spool import Spool
from sparring.artifacts import ArtifactStore, sha256_of
from sparring.contracts.node_agent import UploadBatch
from sparring.contracts.sync import RecordGames, ReportStored, ReportTransferFailed
from sparring.errors import Transient

RECORDED = ("GamesRecorded", "GamesRefused")
STORED = ("BatchStored", "BatchAdmitted", "BatchQuarantined", "BatchRetired", "GamesRefused")
AT_ONCE = 3


class Custody:
    """Batches in a folder, each with its record beside it."""

    def __init__(self, folder: Path, node: str, store: ArtifactStore, spool: Spool, log: Any) -> None:
        self._folder, self._node, self._store, self._spool, self._log = folder, node, store, spool, log
        self._brought: set[str] = set()

    def _file(self, batch: str) -> Path:
        return self._folder / batch

    def _label(self, batch: str) -> Path:
        return self._folder / f".{batch}.json"

    def batches(self) -> list[Path]:
        """The files in custody."""
        found = self._folder.iterdir() if self._folder.exists() else ()
        return [one for one in found if not one.name.startswith(".")]

    def keep(self, record: RecordGames, path: Path, correlation: str = "") -> Path:
        """Moves a batch into custody and has it recorded: both are on disk before the task is said to be done.

        All or nothing: raises OSError when the disk is full, and holds nothing that nobody would ever ask for.
        """
        self._folder.mkdir(exist_ok=True)
        target, label = self._file(record.batch), self._label(record.batch)
        try:
            label.write_text(record.model_dump_json())
            os.replace(path, target)
            for one in (target, label, self._folder):
                _synced(one)
            self._record(record, correlation)
        except OSError:
            self.release(record.batch)
            raise
        return target

    def _record(self, record: RecordGames, correlation: str = "") -> None:
        self._spool.put(record, key=f"record-{record.batch}", attempt=record.attempt, names=RECORDED,
                        correlation=correlation)  # fmt: skip

    def recover(self) -> None:
        """Records again what an earlier life took in: it may have died before it said so; twice changes nothing."""
        for path in self.batches():
            record = self._recorded(path)
            if record is not None:
                self._record(record)

    def release(self, batch: str) -> None:
        """The store's copy was verified: the node's own may go."""
        self._file(batch).unlink(missing_ok=True)
        self._label(batch).unlink(missing_ok=True)
        self._brought.discard(batch)

    # ---- transfers

    async def upload(self, order: UploadBatch, correlation: str = "") -> None:
        """Brings a batch to the store within the grant's lease and at its rate, and reports either way."""
        key = f"{order.batch}-{order.grant}"
        if not self._file(order.batch).exists():
            self._failed(order, f"missing-{key}", "the node has no such batch", correlation, missing=True)
            return
        try:
            async with asyncio.timeout(order.lease_s):
                await self._bring(order.batch, order.sha256, order.bytes_per_s, f"stored-{key}", correlation)
        except (Transient, TimeoutError, OSError) as error:
            self._failed(order, f"failed-{key}", f"{type(error).__name__}: {error}", correlation)

    def _failed(self, order: UploadBatch, key: str, reason: str, correlation: str, *, missing: bool = False) -> None:
        report = ReportTransferFailed(batch=order.batch, grant=order.grant, reason=reason, missing=missing)
        names = ("TransferFailed", "BatchLost", *STORED)
        self._spool.put(report, key=key, attempt=0, names=names, correlation=correlation)

    async def _bring(self, batch: str, sha256: str, bytes_per_s: int, key: str, correlation: str = "") -> None:
        """What changed on this disk goes under its own name: sync quarantines it, and the store keeps it."""
        path = self._file(batch)
        found, size = await asyncio.to_thread(sha256_of, path)
        if found != sha256:
            self._log.error("a batch is not what was recorded", batch=batch, sha256=found, recorded=sha256)
        url = await self._store.put(path, found, bytes_per_s=bytes_per_s)
        self._brought.add(batch)
        report = ReportStored(batch=batch, node=self._node, url=url, sha256=found, bytes=size)
        self._spool.put(report, key=key, attempt=0, names=STORED, correlation=correlation)

    # ---- evacuation

    def unsynced(self, now: float) -> list[RecordGames]:
        """What was not brought to the store yet, the most urgent first: games + .01 · age in seconds, as sync has it."""
        held: list[tuple[float, str, RecordGames]] = []
        for path in self.batches():
            record = self._recorded(path)
            if path.name not in self._brought and record is not None:
                held.append((-record.games - 0.01 * max(0.0, now - path.stat().st_mtime), path.name, record))
        return [record for _, _, record in sorted(held, key=lambda one: one[:2])]

    def _recorded(self, path: Path) -> RecordGames | None:
        label = self._label(path.name)
        return RecordGames.model_validate_json(label.read_text()) if label.exists() else None

    async def evacuate(self, now: float, bytes_per_s: int) -> None:
        """The machine goes: every batch to the store without waiting for a grant, the most urgent first, three at once.

        What is not brought in time stays on disk, and stays recorded as this node's.
        """
        waiting: Iterable[RecordGames] = iter(self.unsynced(now))

        async def bring() -> None:
            for one in waiting:
                try:
                    await self._bring(one.batch, one.sha256, bytes_per_s // AT_ONCE, f"evacuated-{one.batch}")
                    self._log.info("a batch was evacuated", batch=one.batch, games=one.games)
                except (Transient, OSError) as error:
                    self._log.warning("a batch could not be evacuated", batch=one.batch, error=str(error))

        await asyncio.gather(*(bring() for _ in range(AT_ONCE)))


def _synced(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
