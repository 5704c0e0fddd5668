"""The last reading on every telemetry subject, with its age on this process's own clock."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from nats.aio.client import Client
from nats.aio.msg import Msg
from pydantic import ValidationError

from sparring.contracts.readings import Heartbeat, ServiceBeat, TaskProgress
from sparring.decider import Reading, Watch

KEPT_S = 900.0


class Readings:
    """Hears `tel.>`; knows since when it has been listening without a break."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[Any, float]] = {}
        self._started = self._connected = time.monotonic()
        self.broken = 0

    async def listen(self, nc: Client) -> None:
        await nc.subscribe("tel.>", cb=self._hear)

    def reconnected(self) -> None:
        """Silence before this moment proves nothing."""
        self._connected = time.monotonic()

    async def _hear(self, message: Msg) -> None:
        kind = kind_of(message.subject)
        if kind is None:
            return
        try:
            self._last[message.subject] = (kind.model_validate_json(message.data), time.monotonic())
        except ValidationError:
            self.broken += 1

    def now(self) -> Mapping[str, Reading]:
        clock = time.monotonic()
        for subject in [s for s, (_, heard) in self._last.items() if clock - heard > KEPT_S]:
            del self._last[subject]
        return {subject: Reading(data, clock - heard) for subject, (data, heard) in self._last.items()}

    def watch(self, connected: bool) -> Watch:
        clock = time.monotonic()
        return Watch(clock - self._connected if connected else 0.0, clock - self._started)


def kind_of(subject: str) -> type[Heartbeat | ServiceBeat | TaskProgress] | None:
    """What a reading on the subject is."""
    if subject.endswith(".heartbeat"):
        return ServiceBeat if subject.startswith("tel.svc-") else Heartbeat
    return TaskProgress if subject.endswith(".progress") else None
