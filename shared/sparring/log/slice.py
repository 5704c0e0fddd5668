"""A piece of a log in a file: NDJSON that a person can read, or Parquet; what follows a log can follow a slice."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb

from sparring.envelope import foreign
from sparring.errors import BadInput
from sparring.log.interface import Outgoing, Raw
from sparring.log.memory import matches
from sparring.place import SLICES

VERSION = 1
BATCH = 20_000
COLUMNS = '(sequence bigint, "at" timestamptz, subject varchar, headers varchar, body varchar)'


@dataclass(frozen=True)
class Slice:
    """What a file holds: the facts of one log in [first, last]; `lane` names the only lane of which it has facts."""

    log: str
    first: int
    last: int
    lane: str = ""
    version: int = VERSION

    @property
    def whole(self) -> bool:
        """Whether folding it gives the tables as they were."""
        return self.first == 1 and not self.lane

    def __str__(self) -> str:
        part = f", lane {self.lane} only" if self.lane else ""
        return f"facts {self.first} to {self.last}{part}"


class SliceWriter:
    """Writes beside the file and renames at the end: a file is whole or not there."""

    def __init__(self, path: Path) -> None:
        """Raises BadInput for a name that says no format."""
        if path.suffix not in SLICES:
            raise BadInput(f"FILE = {str(path)!r} must end with {' or '.join(SLICES)}")
        if not path.parent.is_dir():
            raise BadInput(f"FILE = {str(path)!r}: there is no folder {path.parent}; make it, or name another one")
        self._path, self._draft = path, path.with_name(f".{path.name}.draft")

    def write(self, head: Slice, raws: Iterable[Raw]) -> int:
        """The facts come in their order; returns how many were written."""
        raws = (raw for raw in raws if not foreign(raw.subject, raw.headers))
        write = self._ndjson if self._path.suffix == ".ndjson" else self._parquet
        try:
            count = write(head, raws)
            with self._draft.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(self._draft, self._path)
        finally:
            self._draft.unlink(missing_ok=True)
        return count

    def _ndjson(self, head: Slice, raws: Iterable[Raw]) -> int:
        count = 0
        with self._draft.open("w") as file:
            file.write(json.dumps({"slice": asdict(head)}) + "\n")
            for raw in raws:
                line = {"sequence": raw.sequence, "at": raw.at.isoformat(), "subject": raw.subject,
                        "headers": dict(raw.headers), "body": json.loads(raw.body)}  # fmt: skip
                file.write(json.dumps(line) + "\n")
                count += 1
        return count

    def _parquet(self, head: Slice, raws: Iterable[Raw]) -> int:
        # in a file: a slice may be larger than memory
        table = self._draft.with_suffix(".duckdb")
        con = duckdb.connect(str(table), config={"threads": 1, "memory_limit": "512MB"})
        try:
            con.execute("set timezone = 'UTC'")
            con.execute(f"create table facts {COLUMNS}")
            count = 0
            with con.appender("facts") as appender:
                for raw in raws:
                    appender.append_row(raw.sequence, raw.at.isoformat(), raw.subject, json.dumps(dict(raw.headers)),
                                        raw.body.decode())  # fmt: skip
                    count += 1
            told = json.dumps(asdict(head)).replace("'", "''")
            con.execute(
                f"copy facts to '{self._draft}' (format parquet, compression zstd, kv_metadata {{slice: '{told}'}})"
            )
            return count
        finally:
            con.close()
            for file in (table, Path(f"{table}.wal")):
                file.unlink(missing_ok=True)


class SliceLog:
    """A log that ends where its file ends. Nothing can be appended."""

    def __init__(self, path: Path) -> None:
        """Raises BadInput for a file that is no slice."""
        self.path = path
        self.head = _head(path)

    def raws(self, after: int = 0) -> Iterator[list[Raw]]:
        """Everything past the sequence, in order, in batches."""
        read = _ndjson if self.path.suffix == ".ndjson" else _parquet
        yield from read(self.path, after)

    async def append(self, batch: Sequence[Outgoing], batch_id: str) -> list[int]:  # noqa: ARG002
        raise BadInput(f"{self.path} is a slice of a log: it can be read, not written")

    async def load(self, pattern: str, after: int = 0) -> list[Raw]:
        return [raw for batch in self.raws(after) for raw in batch if matches(pattern, raw.subject)]

    async def last(self, pattern: str) -> int:
        found = await self.load(pattern)
        return found[-1].sequence if found else 0

    async def end(self) -> int:
        return self.head.last

    async def follow(self, after: int, filters: Sequence[str] = ()) -> AsyncIterator[list[Raw]]:
        """As a log, but it ends."""
        for batch in self.raws(after):
            yield [raw for raw in batch if not filters or any(matches(one, raw.subject) for one in filters)]

    async def get(self, sequence: int) -> Raw | None:
        """The first message at or after the sequence."""
        return next((batch[0] for batch in self.raws(sequence - 1) if batch), None)

    async def first_since(self, moment: datetime) -> int | None:
        """The sequence of the first message stored at or after the moment."""
        return next((raw.sequence for batch in self.raws() for raw in batch if raw.at >= moment), None)


def _head(path: Path) -> Slice:
    try:
        if path.suffix == ".ndjson":
            with path.open() as file:
                told = json.loads(file.readline())["slice"]
        else:
            con = duckdb.connect(":memory:")
            row = con.execute("select value from parquet_kv_metadata(?) where key = 'slice'", [str(path)]).fetchone()
            con.close()
            told = json.loads(bytes(row[0])) if row else {}
        head = Slice(**told)
    except (OSError, ValueError, KeyError, TypeError, duckdb.Error) as error:
        raise BadInput(f"FILE = {path}: not a slice of a log; `spar export FILE` writes one ({error})") from error
    if head.version > VERSION:
        raise BadInput(f"FILE = {path}: written by a newer build (format {head.version}); upgrade this one")
    return head


def _ndjson(path: Path, after: int) -> Iterator[list[Raw]]:
    batch: list[Raw] = []
    with path.open() as file:
        next(file)
        for number, line in enumerate(file, start=2):
            try:
                told: dict[str, Any] = json.loads(line)
                if told["sequence"] > after:
                    body = json.dumps(told["body"], separators=(",", ":")).encode()
                    batch.append(
                        Raw(
                            told["sequence"], datetime.fromisoformat(told["at"]), told["subject"], told["headers"], body
                        )
                    )
            except (ValueError, KeyError, TypeError) as error:
                raise BadInput(
                    f"FILE = {path}, line {number}: {error}; the file is damaged, export it again"
                ) from error
            if len(batch) >= BATCH:
                yield batch
                batch = []
    if batch:
        yield batch


def _parquet(path: Path, after: int) -> Iterator[list[Raw]]:
    con = duckdb.connect(":memory:", config={"threads": 1})
    try:
        con.execute("set timezone = 'UTC'")
        found = con.execute("from read_parquet(?) where sequence > ? order by sequence", [str(path), after])
        while rows := found.fetchmany(BATCH):
            yield [
                Raw(sequence, at.astimezone(UTC), subject, json.loads(headers), body.encode())
                for sequence, at, subject, headers, body in rows
            ]
    finally:
        con.close()
