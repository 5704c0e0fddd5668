"""The last reading on every telemetry subject, with its age on this process's own clock."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.errors import NotFoundError
from pydantic import ValidationError

from sparring.contracts.readings import READINGS, AnyReading, Heartbeat, ServiceBeat
from sparring.decider import Reading, Watch
from sparring.errors import LogUnavailable
from sparring.log.jetstream import JetStreamLog
from sparring.streams import TELEMETRY

KEPT_S = 900.0
SWEEP_S = 60.0
# what is older proves nothing about now
REMEMBERED_S = 30.0


@dataclass(slots=True)
class _Heard:
    """A reading as it came; most are replaced before anybody asks what they say."""

    kind: type[AnyReading]
    body: bytes
    at: float
    data: Any = None
    broken: bool = False


class Readings:
    """Hears telemetry; knows since when it has been listening without a break."""

    def __init__(self) -> None:
        self._last: dict[str, _Heard] = {}
        self._started = self._connected = self._swept = time.monotonic()
        self.broken = 0

    async def listen(self, nc: Client, subjects: Sequence[str]) -> None:
        """From here on what is said is heard; what was said just before is taken from the server, if it can say it now."""
        for subject in subjects:
            await nc.subscribe(subject, cb=self._hear)
        self._started = self._connected = time.monotonic()
        for subject in subjects:
            with contextlib.suppress(LogUnavailable):
                await self._remember(nc, subject)

    async def _remember(self, nc: Client, pattern: str) -> None:
        """As old as the server's clock says, whatever this machine's says. Raises LogUnavailable."""
        found = await stored(nc, pattern)
        if not found:
            return
        now, clock = await JetStreamLog(nc, stream=TELEMETRY).now(), time.monotonic()
        for subject, data, at in found:
            age_s = max(0.0, (now - at).total_seconds())
            if age_s <= REMEMBERED_S:
                self._last.setdefault(subject, _Heard(type(data), b"", clock - age_s, data))

    def reconnected(self) -> None:
        """Silence before this moment proves nothing."""
        self._connected = time.monotonic()

    async def _hear(self, message: Msg) -> None:
        kind = kind_of(message.subject)
        if kind is not None:
            self._last[message.subject] = _Heard(kind, message.data, time.monotonic())

    def now(self) -> Mapping[str, Reading]:
        """A view, not a copy: ages are as of this call, each reading is decoded when it is first asked for."""
        clock = time.monotonic()
        if clock - self._swept > SWEEP_S:
            self._swept = clock
            self._last = {subject: one for subject, one in self._last.items() if clock - one.at <= KEPT_S}
        return _View(self, self._last, clock)

    def decoded(self, one: _Heard) -> bool:
        """Whether the reading says something that this build understands."""
        if one.data is None and not one.broken:
            try:
                one.data = one.kind.model_validate_json(one.body)
            except ValidationError:
                one.broken = True
                self.broken += 1
        return not one.broken

    def watch(self, connected: bool) -> Watch:
        clock = time.monotonic()
        return Watch(clock - self._connected if connected else 0.0, clock - self._started)


class _View(Mapping[str, Reading]):
    def __init__(self, readings: Readings, last: Mapping[str, _Heard], clock: float) -> None:
        self._readings, self._last, self._clock = readings, last, clock

    def __getitem__(self, subject: str) -> Reading:
        one = self._last[subject]
        if not self._readings.decoded(one):
            raise KeyError(subject)
        return Reading(one.data, max(0.0, self._clock - one.at))

    def __iter__(self) -> Iterator[str]:
        return (subject for subject, one in self._last.items() if self._readings.decoded(one))

    def __len__(self) -> int:
        return sum(1 for _ in self)


def kind_of(subject: str) -> type[AnyReading] | None:
    """What a reading on the subject is."""
    if subject.endswith(".heartbeat"):
        return ServiceBeat if subject.startswith("tel.svc-") else Heartbeat
    return READINGS.get(subject.rpartition(".")[2])


async def stored(nc: Client, pattern: str = "tel.>") -> list[tuple[str, AnyReading, datetime]]:
    """The last reading on every subject as the server keeps it, and when it was stored; at most 15 minutes old.

    Readings live in memory: a server that was started again has none until somebody beats. Raises LogUnavailable.
    """
    try:
        raws = await JetStreamLog(nc, stream=TELEMETRY).last_of_each(pattern)
    except LogUnavailable:
        if await _missing(nc):
            return []
        raise
    found = []
    for raw in raws:
        kind = kind_of(raw.subject)
        if kind is not None:
            # what another build says differently is no reading here
            with contextlib.suppress(ValidationError):
                found.append((raw.subject, kind.model_validate_json(raw.body), raw.at))
    return found


async def _missing(nc: Client) -> bool:
    try:
        await nc.jetstream(timeout=5).stream_info(TELEMETRY)
    except NotFoundError:
        return True
    except (nats.errors.Error, TimeoutError):
        return False
    return False
