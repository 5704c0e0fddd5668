"""The one way to read: fold the log with the services' own read models, and answer for all of them at one sequence.

A reader asks no service, so it answers while all of them are down. It keeps snapshots in the cache folder; each command
works on a private copy, so two commands never wait for each other.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import nats
import nats.errors
from nats.aio.client import Client

from sparring import __version__
from sparring.catalogue import read_models
from sparring.contracts import fingerprint
from sparring.decider import Reading
from sparring.errors import BadInput
from sparring.folding import fold
from sparring.log.interface import Raw
from sparring.log.jetstream import JetStreamLog
from sparring.place import Place
from sparring.projection import Projection
from sparring.readings import kind_of
from sparring.streams import EVENTS, TELEMETRY

KEEP_SNAPSHOTS = 3
SNAPSHOT_AFTER = 300


def cache_folder() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(home) / "sparring"


async def connect(
    place: Place, *, name: str = "spar", on_error: Callable[[Exception], Awaitable[None]] | None = None
) -> Client:
    """A connection that gives up soon: a person waits. Raises BadInput when nobody answers."""
    try:
        return await nats.connect(
            place.url.split(","),
            name=name,
            connect_timeout=2,
            max_reconnect_attempts=2,
            allow_reconnect=False,
            user_credentials=place.creds or None,
            **({"error_cb": on_error} if on_error else {}),
        )
    except (nats.errors.Error, OSError, TimeoutError) as error:
        raise BadInput(f"no NATS server answers at {place.url}: {error}; is `spar up` running?") from error


async def open_log(nc: Client) -> tuple[JetStreamLog, str]:
    """The log behind a connection, and its identity: the moment at which its stream was made."""
    info = await nc.jetstream(timeout=5).stream_info(EVENTS)
    return JetStreamLog(nc), str(info.created)


@dataclass(frozen=True)
class AsOf:
    """What an answer is true for."""

    sequence: int
    at: datetime | None
    behind_s: float

    def __str__(self) -> str:
        return f"as of {self.sequence}, {self.behind_s:.1f} s ago" if self.behind_s < 3600 else f"as of {self.sequence}"


class Reader:
    """Tables of all services at one moment of the log."""

    def __init__(self, nc: Client, log: JetStreamLog, projection: Projection, folder: Path | None) -> None:
        self.nc, self.log, self.projection, self._folder = nc, log, projection, folder
        self.last_at: datetime | None = None

    @classmethod
    async def open(cls, place: Place, at: str | None = None) -> Self:
        """The tables at `at` (a sequence or an ISO time; None: now). Raises BadInput for a moment that never was."""
        nc = await connect(place)
        try:
            log = JetStreamLog(nc)
            info = await nc.jetstream(timeout=5).stream_info(EVENTS)
            target = await _moment(nc, log, at)
            identity = hashlib.sha256(str(info.created).encode()).hexdigest()[:12]
            reader = cls._begin(nc, log, cache_folder() / identity, target)
            await reader.catch_up(target)
            reader._remember(cache_folder() / identity)
        except BaseException:
            await nc.close()
            raise
        return reader

    @classmethod
    def _begin(cls, nc: Client, log: JetStreamLog, cache: Path, target: int) -> Self:
        folder = Path(tempfile.mkdtemp(prefix="spar-read-"))
        file = folder / "tables.duckdb"
        known = [one for one in _snapshots(cache) if one[0] <= target]
        if known:
            # a snapshot that another command replaces in this moment is folded anew instead
            with contextlib.suppress(OSError):
                shutil.copyfile(known[-1][1], file)
        return cls(nc, log, Projection(file, read_models()), folder)

    async def catch_up(self, target: int) -> None:
        """Folds up to the sequence."""
        self._started_at = self.projection.position
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
        info = await self.nc.jetstream(timeout=5).stream_info(EVENTS)
        return hashlib.sha256(str(info.created).encode()).hexdigest()[:12]

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
        """The last reading on every telemetry subject, at most 15 minutes old."""
        found: dict[str, Reading] = {}
        now = datetime.now(UTC)
        for raw in await JetStreamLog(self.nc, stream=TELEMETRY).last_of_each("tel.>"):
            kind = kind_of(raw.subject)
            if kind is not None:
                with contextlib.suppress(ValueError):
                    data = kind.model_validate_json(raw.body)
                    found[raw.subject] = Reading(data, max(0.0, (now - raw.at).total_seconds()))
        return found

    async def close(self) -> None:
        self.projection.close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
        await self.nc.close()

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


async def _moment(nc: Client, log: JetStreamLog, at: str | None) -> int:
    end = await log.end()
    if at is None:
        return end
    if at.isdigit():
        if int(at) > end:
            raise BadInput(f"--at {at}: the log ends at {end}; give a sequence up to that, or a time")
        return await _end_of_batch(nc, int(at), end)
    try:
        moment = datetime.fromisoformat(at)
    except ValueError as error:
        raise BadInput(f"--at {at!r} is neither a sequence nor a time like 2030-01-31T12:00:00Z") from error
    if moment.tzinfo is None:
        moment = moment.astimezone()
    following = await _first_since(nc, moment)
    return await _end_of_batch(nc, following - 1, end) if following else end


async def _first_since(nc: Client, moment: datetime) -> int | None:
    query = {"start_time": moment.astimezone(UTC).isoformat().replace("+00:00", "Z"), "next_by_subj": ">"}
    answer = await nc.request(f"$JS.API.DIRECT.GET.{EVENTS}", json.dumps(query).encode(), timeout=5)
    sequence = (answer.headers or {}).get("Nats-Sequence")
    return int(sequence) if sequence else None


async def _end_of_batch(nc: Client, sequence: int, end: int) -> int:
    """A moment inside an atomic batch is its end: the decision was one."""
    js = nc.jetstream(timeout=5)
    if sequence <= 0:
        return 0
    batch = (await js.get_msg(EVENTS, sequence)).headers or {}
    while "Nats-Batch-Id" in batch and "Nats-Batch-Commit" not in batch and sequence < end:
        sequence += 1
        batch = (await js.get_msg(EVENTS, sequence)).headers or {}
    return sequence
