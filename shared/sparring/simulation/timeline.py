"""Virtual time: what is due next happens next, and equal moments keep the order in which they were asked for."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

START = datetime(2030, 1, 1, tzinfo=UTC)


def rng_of(seed: int, *names: object) -> random.Random:
    """Randomness of one thing, independent of everything else that happens: the same names draw the same numbers."""
    return random.Random("/".join(str(one) for one in (seed, *names)))


class Timeline:
    """`now` in seconds since START."""

    def __init__(self) -> None:
        self.now = 0.0
        self.events = 0
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._serial = 0

    def at(self, moment: float, do: Callable[..., None], *args: Any) -> None:
        self._serial += 1
        heapq.heappush(self._heap, (max(moment, self.now), self._serial, do, args))

    def after(self, seconds: float, do: Callable[..., None], *args: Any) -> None:
        self._serial += 1
        heapq.heappush(self._heap, (self.now + seconds, self._serial, do, args))

    def instant(self, skew_s: float = 0.0) -> datetime:
        """The moment on a clock that is off by `skew_s`."""
        return START + timedelta(seconds=self.now + skew_s)

    def run(self, until: float) -> None:
        """Lets everything happen that is due up to `until`."""
        heap, pop = self._heap, heapq.heappop
        while heap and heap[0][0] <= until:
            self.now, _, do, args = pop(heap)
            self.events += 1
            do(*args)
        self.now = max(self.now, until)
