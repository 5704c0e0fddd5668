"""An alarm: one cause, raised, repeated at most hourly, and cleared."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sparring.contracts.health import AlarmCleared, AlarmRaised
from sparring.decider import Decider, Recorded, replace


@dataclass(frozen=True)
class Alarm:
    raised: bool = False
    times: int = 0
    at: datetime | None = None
    since: datetime | None = None


def evolve(alarm: Alarm, recorded: Recorded) -> Alarm:
    match recorded.fact:
        case AlarmRaised(times=times, since=since):
            first = since or (alarm.since if alarm.raised and alarm.since else recorded.at)
            return Alarm(True, times, recorded.at, first)
        case AlarmCleared():
            return replace(alarm, raised=False)
    return alarm


ALARM = Decider("health", "alarm", Alarm(), evolve)
