"""The watcher's own entity: whether what it hears proves anything about others."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sparring.contracts.health import ObservationLost, ObservationRegained
from sparring.decider import Decider, Recorded


@dataclass(frozen=True)
class Watching:
    lost_until: datetime | None = None


def evolve(watching: Watching, recorded: Recorded) -> Watching:
    match recorded.fact:
        case ObservationLost(until=until):
            return Watching(until)
        case ObservationRegained():
            return Watching()
    return watching


WATCH = Decider("health", "watch", Watching(), evolve)
