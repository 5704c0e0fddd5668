"""A DuckDB file that holds read models: every batch of facts and the new position go in by one transaction."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import duckdb

from sparring.contracts.base import FACTS, Fact
from sparring.envelope import CORRELATION, ORDER, current
from sparring.errors import Transient, Undecodable, UnknownMessage
from sparring.log.interface import Raw
from sparring.read_model import ReadModel
from sparring.subjects import CARRIED, untoken

STAGING = """
create temp table if not exists facts (
    sequence bigint, "at" timestamptz, subject varchar, owner varchar, entity varchar, id varchar, type varchar,
    version integer, data json, fact_id varchar, caused_by_order varchar, correlation varchar
);
-- as the appender takes it fastest: it converts value by value, DuckDB's own casts go by columns
create temp table if not exists arrived (
    sequence bigint, "at" varchar, subject varchar, owner varchar, entity varchar, id varchar, type varchar,
    version integer, data varchar, fact_id varchar, caused_by_order varchar, correlation varchar
);
create table if not exists positions (model varchar primary key, version integer, sequence bigint, "at" timestamptz);
"""


class FileInUse(Transient):
    """Another process has the file open: DuckDB allows one. Stop it, or give this replica another name."""


class Projection:
    """Several read models in one file, all at one position. Not thread-safe: one user at a time."""

    def __init__(self, path: Path | str, models: Sequence[ReadModel], *, threads: int = 1) -> None:
        """Opens or creates the file; a file made by other versions of the models, or a damaged one, is begun anew."""
        self.path, self.models, self._threads = path, tuple(models), threads
        self._types = frozenset(name for model in models for name in model.types)
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
        self.con.execute(STAGING)
        for model in self.models:
            self.con.execute(model.tables)

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

    @property
    def position(self) -> int:
        row = self.con.execute("select min(sequence) from positions").fetchone()
        return int(row[0]) if row and row[0] is not None else 0

    def apply(self, batch: Sequence[Raw], *, up_to: int | None = None) -> None:
        """Takes in the facts past the position, and moves it to `up_to` or the batch's last sequence.

        Raises Undecodable, UnknownMessage or NewerVersion before anything changed: a read model skips nothing.
        """
        position = self.position
        fresh = [raw for raw in batch if raw.sequence > position]
        end = max([position, up_to or 0, *(raw.sequence for raw in fresh[-1:])])
        if end == position:
            return
        rows = list(_rows(fresh, self._types))
        kinds = {str(row[6]) for row in rows}
        last_at = fresh[-1].at if fresh else None
        self.con.begin()
        try:
            self._stage(rows)
            for model in self.models:
                for rule in model.rules:
                    if kinds.intersection(t.__name__ for t in rule.types):
                        self.con.execute(rule.sql)
                self.con.execute(
                    "insert into positions values (?, ?, ?, ?) on conflict (model) do update set "
                    'version = excluded.version, sequence = excluded.sequence, "at" = excluded."at"',
                    [model.name, model.version, end, last_at],
                )
            self.con.execute("delete from facts")
            self.con.commit()
        except BaseException:
            self.con.rollback()
            raise

    def _stage(self, rows: Sequence[Sequence[Any]]) -> None:
        if not rows:
            return
        with self.con.appender("arrived") as appender:
            for row in rows:
                appender.append_row(*row)
        self.con.execute("insert into facts select * from arrived")
        self.con.execute("delete from arrived")

    def tables(self) -> list[str]:
        """The read models' tables, without the kernel's own; views are not listed."""
        found = self.con.execute(
            "select table_name from duckdb_tables() where not temporary and table_name <> 'positions' order by 1"
        ).fetchall()
        return [str(name) for (name,) in found]

    def close(self) -> None:
        self.con.close()


@cache
def _schema_of(cls: type[Fact]) -> str:
    return cls.schema_name()


def _rows(batch: Iterable[Raw], types: frozenset[str]) -> Iterable[list[Any]]:
    for raw in batch:
        kind, owner, entity, id, name = raw.subject.split(".", 4)
        if kind != "evt" or owner.startswith("ext-") or name == CARRIED:
            continue
        cls = FACTS.get((owner, entity, name))
        if cls is None:
            raise UnknownMessage(f"no contract matches {raw.subject} at sequence {raw.sequence}; upgrade this reader")
        if name not in types:
            continue
        headers, schema = raw.headers, _schema_of(cls)
        body = raw.body.decode()
        if headers.get("ce-dataschema", schema) != schema:
            try:
                body = json.dumps(current(cls, headers, json.loads(body)))
            except ValueError as error:
                raise Undecodable(f"{raw.subject} at sequence {raw.sequence}: {error}") from error
        at = headers.get("ce-time") or raw.at.isoformat()
        yield [
            raw.sequence, at, raw.subject, owner, entity, untoken(id), name, cls.version, body,
            headers.get("ce-id", ""), headers.get(ORDER, ""), headers.get(CORRELATION, ""),
        ]  # fmt: skip
