"""Proof that state is disposable: tables folded anew from the first fact, compared row by row with a service's own."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import nats.errors
from nats.aio.client import Client

from sparring.copies import ask_subject
from sparring.errors import BadInput
from sparring.folding import fold
from sparring.log.interface import Log
from sparring.projection import Projection
from sparring.service import Service
from sparring.snapshots import Snapshot, SnapshotRefused, Snapshots, projector_version

ANSWER_S = 120.0


@dataclass(frozen=True)
class Difference:
    """The first place at which two files differ; `column` is '' when one of them lacks the row."""

    table: str
    key: Mapping[str, Any]
    column: str
    live: Any
    rebuilt: Any

    def __str__(self) -> str:
        key = ", ".join(f"{name} = {value!r}" for name, value in self.key.items())
        if not self.column:
            return f"{self.table}, {key}: the row is {self.live} in the live file, {self.rebuilt} in the rebuilt one"
        return f"{self.table}, {key}, column {self.column}: live {self.live!r}, rebuilt {self.rebuilt!r}"


def first_difference(live: Path, rebuilt: Path) -> Difference | None:
    """Compares every table of both files, tables by name, rows by primary key. Neither file may be open elsewhere."""
    con = duckdb.connect(":memory:", config={"threads": 1})
    try:
        con.execute("set timezone = 'UTC'")
        con.execute(f"attach '{live}' as live (read_only)")
        con.execute(f"attach '{rebuilt}' as rebuilt (read_only)")
        ours, theirs = _columns(con, "rebuilt"), _columns(con, "live")
        for table in sorted(ours.keys() | theirs.keys()):
            if ours.get(table) != theirs.get(table):
                return Difference(table, {}, "columns", theirs.get(table), ours.get(table))
            found = _differing(con, table, ours[table])
            if found is not None:
                return found
        return None
    finally:
        con.close()


def _columns(con: duckdb.DuckDBPyConnection, database: str) -> dict[str, list[str]]:
    found = con.execute(
        "select table_name, list(column_name order by column_index) from duckdb_columns() "
        "where database_name = ? and not internal and table_name in (select table_name from duckdb_tables() "
        "where database_name = ?) group by 1",
        [database, database],
    ).fetchall()
    return dict(found)


def _differing(con: duckdb.DuckDBPyConnection, table: str, columns: Sequence[str]) -> Difference | None:
    key = _key(con, table) or list(columns)
    # the moment of a position is that of the last batch's last fact, wherever the batch ended
    rest = [name for name in columns if name not in key and (table, name) != ("positions", "at")]
    same = " and ".join(f'l."{name}" is not distinct from r."{name}"' for name in key)
    wrong = ["l.here is distinct from r.here"] + [f'l."{name}" is distinct from r."{name}"' for name in rest]
    told = [f'coalesce(l."{name}", r."{name}")' for name in key] + ["l.here", "r.here"]
    told += [f'{side}."{name}"' for name in rest for side in ("l", "r")]
    query = (
        f'select {", ".join(told)} from (select *, true here from live."{table}") l '
        f'full join (select *, true here from rebuilt."{table}") r on {same} '
        f"where {' or '.join(wrong)} order by {', '.join(str(n + 1) for n in range(len(key)))} limit 1"
    )
    row = con.execute(query).fetchone()
    if row is None:
        return None
    place = dict(zip(key, row, strict=False))
    in_live, in_rebuilt = row[len(key) : len(key) + 2]
    if not (in_live and in_rebuilt):
        words = {True: "there", None: "missing"}
        return Difference(table, place, "", words[in_live], words[in_rebuilt])
    values = row[len(key) + 2 :]
    for number, name in enumerate(rest):
        if values[2 * number] != values[2 * number + 1]:
            return Difference(table, place, name, values[2 * number], values[2 * number + 1])
    raise AssertionError(f"{table}: rows differ, but no column does")


def _key(con: duckdb.DuckDBPyConnection, table: str) -> list[str]:
    row = con.execute(
        "select constraint_column_names from duckdb_constraints() where database_name = 'rebuilt' and table_name = ? "
        "and constraint_type = 'PRIMARY KEY'",
        [table],
    ).fetchone()
    return [str(name) for name in row[0]] if row else []


# ---- a service's own tables


@dataclass
class Live:
    """A copy of a service's own tables. `file` is the original when nobody has it open: `lock` keeps it so."""

    service: Service
    copy: Path
    sequence: int
    snapshot: Snapshot | None = None
    file: Path | None = None
    lock: duckdb.DuckDBPyConnection | None = None

    def close(self) -> None:
        if self.lock is not None:
            self.lock.close()
            self.lock = None


async def ask(nc: Client, service: str, replica: str, what: str, body: bytes = b"") -> dict[str, Any] | None:
    """What the running replica answers; None when it does not run. Raises BadInput when it can't do it."""
    try:
        answer = await nc.request(ask_subject(service, replica, what), body, timeout=ANSWER_S)
    except nats.errors.NoRespondersError:
        return None
    except (nats.errors.Error, TimeoutError, OSError) as error:
        raise BadInput(f"{service}/{replica} did not answer: {error!r}; see its log") from error
    told: dict[str, Any] = json.loads(answer.data)
    if "error" in told:
        raise BadInput(f"{service}/{replica}: {told['error']}")
    return told


async def live_tables(
    nc: Client, snapshots: Snapshots, service: Service, replica: str, data: Path | None, work: Path
) -> Live:
    """The service's own tables: asked of it while it runs, else its file in the data folder.

    Raises BadInput when there is neither, or when they were made by another build.
    """
    copy = work / f"{service.name}-live.duckdb"
    told = await ask(nc, service.name, replica, "CopyTables")
    if told is not None:
        snapshot = Snapshot(**told)
        if snapshot.version != projector_version(service.read_models):
            raise BadInput(f"{service.name}/{replica} runs another build; run `spar` of that build")
        try:
            await snapshots.fetch(snapshot, copy)
        except SnapshotRefused as error:
            raise BadInput(f"{service.name}/{replica}: its copy can't be read: {error}") from error
        return Live(service, copy, snapshot.sequence, snapshot=snapshot)
    return await asyncio.to_thread(_of_file, snapshots.log, service, replica, data, copy)


def _of_file(log: str, service: Service, replica: str, data: Path | None, copy: Path) -> Live:
    file = file_of(log, service.name, replica, data)
    if file is None:
        raise BadInput(
            f"{service.name}/{replica} does not run, and --data names no folder with its file; start it, "
            "or name the folder that it ran in"
        )
    try:
        con = duckdb.connect(str(file), config={"threads": 1})
        con.execute("checkpoint")
        found = con.execute("select model, version, sequence from positions").fetchall()
    except duckdb.Error as error:
        raise BadInput(f"{file}: {error}; a file that is damaged is begun anew when {service.name} starts") from error
    wanted = {(model.name, model.version) for model in service.read_models}
    if {(model, version) for model, version, _ in found} != wanted:
        con.close()
        raise BadInput(f"{file} was made by other read models; it is begun anew when {service.name} starts")
    shutil.copyfile(file, copy)
    return Live(service, copy, min(sequence for _, _, sequence in found), file=file, lock=con)


def file_of(log: str, service: str, replica: str, data: Path | None) -> Path | None:
    """Where the replica keeps its tables under a `spar up` folder or its own --data folder; None: nowhere."""
    if data is None:
        return None
    name = f"read-{hashlib.sha256(log.encode()).hexdigest()[:8]}.duckdb"
    places = (data / "services" / service / replica / name, data / service / replica / name)
    return next((one for one in places if one.exists()), None)


async def rebuilt(
    log: Log, found: Sequence[Live], work: Path, progress: Callable[[int], None] | None = None
) -> dict[str, Path]:
    """Folds the log from its first fact into a file per service, each up to its live tables' sequence."""
    files = {live.service.name: work / f"{live.service.name}-rebuilt.duckdb" for live in found}
    parts = [(Projection(files[live.service.name], live.service.read_models), live.sequence) for live in found]
    try:
        await fold(log, parts, progress=progress)
        for one, _ in parts:
            one.con.execute("checkpoint")
    finally:
        for one, _ in parts:
            one.close()
    return files


async def swap(nc: Client, snapshots: Snapshots, live: Live, replica: str, rebuilt: Path) -> int:
    """Puts the rebuilt file in place of the live one; a running service does so itself. Returns the sequence then."""
    service = live.service
    if live.file is None:
        version = projector_version(service.read_models)
        one = await snapshots.put(service.name, "tables", version, live.sequence, rebuilt)
        told = await ask(nc, service.name, replica, "SwapTables", json.dumps(one.__dict__).encode())
        if told is None:
            raise BadInput(f"{service.name}/{replica} ended meanwhile; run it again")
        return live.sequence
    beside = live.file.with_name(f".{live.file.name}.rebuilt")
    shutil.copyfile(rebuilt, beside)
    with beside.open("rb") as file:
        os.fsync(file.fileno())
    # the old file stays open, and so locked, until the new one has its name
    os.replace(beside, live.file)
    Path(f"{live.file}.wal").unlink(missing_ok=True)
    live.close()
    return live.sequence
