"""Handlers' success over the last minutes, from beats that count since each process began."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from health.core.beats import Heard


@dataclass(frozen=True)
class Handled:
    """Messages that handlers took, and those on which they failed."""

    good: int = 0
    failed: int = 0

    @property
    def success(self) -> float:
        """The share that succeeded; 1 while nothing was tried."""
        return self.good / (self.good + self.failed) if self.good + self.failed else 1.0


@dataclass
class ErrorWindow:
    """The counts of every replica at several moments, kept for `seconds`; a replica that counts less than before began
    anew, and counts from 0. What it counted before it was first heard is not of this window."""

    seconds: float = 300.0
    _seen: dict[tuple[str, str], deque[tuple[datetime, int, int]]] = field(default_factory=dict)
    _last: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict)

    def note(self, beats: Heard, now: datetime) -> None:
        for replica, (beat, _) in beats.replicas.items():
            counts = beat.handled, beat.failed
            last = self._last.get(replica)
            self._last[replica] = counts
            if last is None:
                # younger than the window: all that it counted happened inside
                last = (0, 0) if beat.up_s <= self.seconds else counts
            elif counts[0] < last[0] or counts[1] < last[1]:
                last = 0, 0
            if counts != last:
                self._seen.setdefault(replica, deque()).append((now, counts[0] - last[0], counts[1] - last[1]))
        since = now - timedelta(seconds=self.seconds)
        for moments in self._seen.values():
            while moments and moments[0][0] <= since:
                moments.popleft()

    def of(self, service: str = "") -> Handled:
        """What the service's replicas did, or all of them together."""
        found = [one for (name, _), moments in self._seen.items() if service in ("", name) for one in moments]
        return Handled(sum(good for _, good, _ in found), sum(failed for _, _, failed in found))
