"""The one way to read: fold the log with the services' own read models, and answer for all of them at one sequence.

A reader asks no service, so it answers while all of them are down. It keeps snapshots in the cache folder, and begins at the
copies that services keep in SNAPSHOTS where those are far ahead; each command works on a private copy, so two commands never
wait for each other.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import nats
import nats.errors
from nats.aio.client import Client

from sparring import __version__
from sparring.catalogue import read_models
from sparring.connection import close
from sparring.contracts import fingerprint
from sparring.decider import Reading
from sparring.errors import BadInput, CannotAnswer
from sparring.folding import fold
from sparring.head_start import head_start
from sparring.log.archived import ArchivedLog
from sparring.log.interface import Raw
from sparring.log.jetstream import born
from sparring.log.slice import SliceLog
from sparring.place import Place, cache_folder
from sparring.projection import Projection
from sparring.readings import stored

KEEP_SNAPSHOTS = 3
SNAPSHOT_AFTER = 300


async def connect(
    place: Place, *, name: str = "spar", on_error: Callable[[Exception], Awaitable[None]] | None = None
) -> Client:
    """A connection that gives up soon: a person waits. Raises BadInput when nobody answers."""
    if place.slice is not None:
        raise BadInput(f"{place.slice} is a slice of a log: no server, no services; only what reads facts works on it")
    try:
        return await nats.connect(
            place.url.split(","),
            name=name,
            connect_timeout=2,
            max_reconnect_attempts=2,
            allow_reconnect=False,
            user_credentials=place.creds or None,
            error_cb=on_error or _unsaid,
        )
    except (nats.errors.Error, OSError, TimeoutError) as error:
        raise BadInput(f"no NATS server answers at {place.url}: {error}; is `spar up` running?") from error


async def _unsaid(_: Exception) -> None:
    """What goes wrong is raised where it is noticed; nats-py would print a traceback besides."""


async def open_log(nc: Client) -> tuple[ArchivedLog, str]:
    """The log behind a connection, archive and stream as one, and its identity: the moment of its stream's birth."""
    return ArchivedLog(nc), await born(nc)


# a log in which any moment can be found
History = ArchivedLog | SliceLog


@dataclass(frozen=True)
class AsOf:
    """What an answer is true for."""

    sequence: int
    at: datetime | None
    behind_s: float

    def __str__(self) -> str:
        if self.behind_s < 3600:
            return f"as of {self.sequence}, {self.behind_s:.1f} s ago"
        return f"as of {self.sequence}" + (f", {self.at:%Y-%m-%d %H:%M:%S} UTC" if self.at else "")


@contextlib.asynccontextmanager
async def history(place: Place) -> AsyncIterator[History]:
    """The log of the place, to be read message by message. Raises BadInput."""
    if place.slice is not None:
        yield SliceLog(place.slice)
        return
    nc = await connect(place)
    try:
        yield ArchivedLog(nc)
    finally:
        await close(nc)


class Reader:
    """Tables of all services at one moment of the log."""

    def __init__(self, nc: Client | None, log: History, projection: Projection, folder: Path | None) -> None:
        self._nc, self.log, self.projection, self._folder = nc, log, projection, folder
        self.last_at: datetime | None = None
        # whether what is asked about is over: nobody beats there, and time stands still at the last fact
        self.past = nc is None
        self._started_at = 0

    @property
    def nc(self) -> Client:
        """The connection. Raises CannotAnswer where a slice is read: what is no fact is not in it."""
        if self._nc is None:
            raise CannotAnswer("a slice of a log holds facts alone: dead letters' originals and readings are not in it")
        return self._nc

    @classmethod
    async def open(cls, place: Place, at: str | None = None) -> Self:
        """The tables at `at` (a sequence or an ISO time; None: now). Raises BadInput for a moment that never was."""
        if place.slice is not None:
            return await cls._of(None, SliceLog(place.slice), at)
        nc = await connect(place)
        try:
            return await cls._of(nc, ArchivedLog(nc), at)
        except BaseException:
            await close(nc)
            raise

    @classmethod
    async def over(cls, nc: Client, folder: Path) -> Self:
        """The tables now, in a folder of the caller's, over a connection of its own: for who goes on following the log."""
        return await cls._of(nc, ArchivedLog(nc), None, folder)

    @classmethod
    async def _of(cls, nc: Client | None, log: History, at: str | None, folder: Path | None = None) -> Self:
        cache = cache_folder() / await _identity(nc, log)
        target = await _moment(log, at)
        folder = folder or Path(tempfile.mkdtemp(prefix="spar-read-"))
        reader = await cls._begin(nc, log, cache, target, folder)
        await reader.catch_up(target)
        reader.past = reader.past or at is not None
        reader._remember(cache)
        return reader

    @classmethod
    async def _begin(cls, nc: Client | None, log: History, cache: Path, target: int, folder: Path) -> Self:
        """At the newest snapshot in the cache, or where that is far behind at the copies that services keep."""
        have, known = next((one for one in reversed(_snapshots(cache)) if one[0] <= target), (0, None))
        file = await head_start(nc, log, folder, have, target) if nc is not None else None
        if file is None:
            file = folder / "tables.duckdb"
            # a snapshot that another command replaces in this moment is folded anew instead
            with contextlib.suppress(OSError):
                if known is not None:
                    shutil.copyfile(known, file)
        reader = cls(nc, log, Projection(file, read_models()), folder)
        reader._started_at = have
        return reader

    async def catch_up(self, target: int) -> None:
        """Folds up to the sequence."""
        self.last_at = await fold(self.log, [(self.projection, target)])

    def take(self, batch: Sequence[Raw], up_to: int | None = None) -> None:
        self.projection.apply(batch, up_to=up_to)
        if batch:
            self.last_at = batch[-1].at

    def _remember(self, cache: Path) -> None:
        if self._folder is None or self.projection.position - self._started_at < SNAPSHOT_AFTER:
            return
        cache.mkdir(parents=True, exist_ok=True)
        self.projection.con.execute("checkpoint")
        draft = cache / f".{os.getpid()}.tmp"
        shutil.copyfile(str(self.projection.path), draft)
        os.replace(draft, cache / f"{_models()}-{self.projection.position}.duckdb")
        for _, old in _snapshots(cache)[:-KEEP_SNAPSHOTS]:
            old.unlink(missing_ok=True)

    async def identity(self) -> str:
        """Which log this is: another one that happens to listen at the same address has another."""
        return await _identity(self._nc, self.log)

    @property
    def as_of(self) -> AsOf:
        row = self.projection.con.execute('select max("at") from positions').fetchone()
        at = row[0] if row else None
        return AsOf(self.projection.position, at, (datetime.now(UTC) - at).total_seconds() if at else 0.0)

    def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[dict[str, Any]]:
        """The answer as dictionaries; JSON columns come decoded."""
        cursor = self.projection.con.execute(sql, list(parameters))
        columns = cursor.description or []
        names = [str(column[0]) for column in columns]
        decoded = {str(column[0]) for column in columns if str(column[1]) == "JSON"}
        return [
            {n: json.loads(v) if n in decoded and isinstance(v, str) else v for n, v in zip(names, row, strict=True)}
            for row in cursor.fetchall()
        ]

    async def readings(self) -> Mapping[str, Reading]:
        """The last reading on every telemetry subject, at most 15 minutes old; of a past moment none are kept."""
        if self._nc is None or self.past:
            return {}
        now = datetime.now(UTC)
        return {
            subject: Reading(data, max(0.0, (now - at).total_seconds())) for subject, data, at in await stored(self._nc)
        }

    async def close(self) -> None:
        self.projection.close()
        if self._folder is not None:
            await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)
        if self._nc is not None:
            await close(self._nc)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def _models() -> str:
    text = " ".join(f"{model.name}.{model.version}" for model in read_models())
    return hashlib.sha256(f"{text} {fingerprint()} {__version__}".encode()).hexdigest()[:8]


def _snapshots(cache: Path) -> list[tuple[int, Path]]:
    found = []
    for file in cache.glob(f"{_models()}-*.duckdb") if cache.exists() else ():
        with contextlib.suppress(ValueError):
            found.append((int(file.stem.rpartition("-")[2]), file))
    return sorted(found)


async def log_identity(nc: Client) -> str:
    """Which log lies behind a connection, short enough for a file's name."""
    return hashlib.sha256((await born(nc)).encode()).hexdigest()[:12]


async def _identity(nc: Client | None, log: History) -> str:
    if isinstance(log, SliceLog):
        # a piece of a log folds into other tables than the log itself
        text = f"{log.head} {log.path.stat().st_mtime_ns}"
    else:
        assert nc is not None
        return await log_identity(nc)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def instant(text: str, option: str) -> datetime:
    """The time that a person wrote; without a zone it is this machine's. Raises BadInput."""
    try:
        when = datetime.fromisoformat(text)
    except ValueError as error:
        raise BadInput(f"{option} {text!r} is neither a sequence nor a time like 2030-01-31T12:00:00Z") from error
    return when if when.tzinfo is not None else when.astimezone()


async def moment(log: History, text: str, option: str = "--at") -> int:
    """The sequence that a sequence or a time names: the last fact by then, to the end of its atomic batch.

    Raises BadInput for what is neither, and for a moment that never was.
    """
    end = await log.end()
    if text.isdigit():
        if int(text) > end:
            raise BadInput(f"{option} {text}: the log ends at {end}; give a sequence up to that, or a time")
        return await _end_of_batch(log, int(text), end)
    following = await log.first_since(instant(text, option))
    return await _end_of_batch(log, following - 1, end) if following else end


async def _moment(log: History, at: str | None) -> int:
    return await log.end() if at is None else await moment(log, at)


async def _end_of_batch(log: History, sequence: int, end: int) -> int:
    """A moment inside an atomic batch is its end: the decision was one."""
    while 0 < sequence < end:
        raw = await log.get(sequence)
        if raw is None or raw.sequence != sequence or not _goes_on(raw):
            break
        sequence += 1
    return max(0, sequence)


def _goes_on(raw: Raw) -> bool:
    return "Nats-Batch-Id" in raw.headers and "Nats-Batch-Commit" not in raw.headers
