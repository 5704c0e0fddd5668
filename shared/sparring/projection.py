"""A DuckDB file that holds read models: every batch of facts and the new position go in by one transaction."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import duckdb

from sparring.errors import Transient
from sparring.log.interface import Raw
from sparring.read_model import ReadModel
from sparring.staging import Staging

POSITIONS = """
create table if not exists positions (model varchar primary key, version integer, sequence bigint, "at" timestamptz)
"""
# DuckDB keeps half a kilobyte of memory for each `insert … on conflict`, until its file is closed: duckdb/duckdb#25162
REOPEN_AFTER = 4_000


class FileInUse(Transient):
    """Another process has the file open: DuckDB allows one. Stop it, or give this replica another name."""


class Projection:
    """Several read models in one file, all at one position. Not thread-safe: one user at a time."""

    def __init__(self, path: Path | str, models: Sequence[ReadModel], *, threads: int = 1) -> None:
        """Opens or creates the file; a file made by other versions of the models, or a damaged one, is begun anew."""
        self.path, self.models, self._threads = path, tuple(models), threads
        try:
            self._open()
            if not self._fits():
                self._begin_anew()
        except duckdb.Error as error:
            # a file that another process has open is not damaged
            if "lock" in str(error).lower():
                raise FileInUse(f"{path}: {error}") from error
            self._begin_anew()

    def _open(self) -> None:
        # the time zone is fixed: instants print alike on every machine
        self.con = duckdb.connect(str(self.path), config={"threads": self._threads, "memory_limit": "512MB"})
        self.con.execute("set timezone = 'UTC'")
        self.con.execute(POSITIONS)
        self._staging = Staging(self.con, self.models)
        for model in self.models:
            self.con.execute(model.tables)
        # what the file says, without asking it at every batch
        self.position = self._stands_at()
        self._applied = 0

    def _stands_at(self) -> int:
        row = self.con.execute("select min(sequence) from positions").fetchone()
        return int(row[0]) if row and row[0] is not None else 0

    def _fits(self) -> bool:
        found = dict(self.con.execute("select model, version from positions").fetchall())
        wanted = {model.name: model.version for model in self.models}
        return not found or found == wanted

    def _begin_anew(self) -> None:
        if hasattr(self, "con"):
            self.con.close()
        if str(self.path) != ":memory:":
            for file in (Path(self.path), Path(f"{self.path}.wal")):
                file.unlink(missing_ok=True)
        self._open()

    def replace_with(self, file: Path) -> None:
        """Takes over the file, which nobody has open, in place of its own: by renaming, so that one of them is there."""
        self.con.close()
        Path(f"{self.path}.wal").unlink(missing_ok=True)
        os.replace(file, self.path)
        self._open()

    def apply(self, batch: Sequence[Raw], *, up_to: int | None = None) -> None:
        """Takes in the facts past the position, and moves it to `up_to` or the batch's last sequence.

        Raises Undecodable, UnknownMessage or NewerVersion before anything changed: a read model skips nothing.
        """
        if self._applied >= REOPEN_AFTER and str(self.path) != ":memory:":
            self.con.close()
            self._open()
        position = self.position
        fresh = [raw for raw in batch if raw.sequence > position]
        end = max([position, up_to or 0, *(raw.sequence for raw in fresh[-1:])])
        if end == position:
            return
        last_at = fresh[-1].at if fresh else None
        self.con.begin()
        try:
            kinds = self._staging.take(fresh)
            for model in self.models:
                for rule in model.rules:
                    if kinds.intersection(t.__name__ for t in rule.types):
                        self.con.execute(rule.sql)
            self._moved_to(end, last_at)
            self._staging.clear()
            self.con.commit()
        except BaseException:
            self.con.rollback()
            self.position = self._stands_at()
            raise
        self.position = end
        self._applied += 1

    def _moved_to(self, sequence: int, at: datetime | None) -> None:
        (moved,) = self.con.execute('update positions set sequence = ?, "at" = ?', [sequence, at]).fetchone() or (0,)
        if not moved:
            rows = [[model.name, model.version, sequence, at] for model in self.models]
            self.con.executemany("insert into positions values (?, ?, ?, ?)", rows)

    def tables(self) -> list[str]:
        """The read models' tables, without the kernel's own; views are not listed."""
        found = self.con.execute(
            "select table_name from duckdb_tables() where not temporary and table_name <> 'positions' order by 1"
        ).fetchall()
        return [str(name) for (name,) in found]

    def close(self) -> None:
        self.con.close()
