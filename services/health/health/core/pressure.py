"""Back-pressure of a queue: ordered levels, with hysteresis, where worse input never gives a milder level."""

from __future__ import annotations

from dataclasses import dataclass

from sparring.contracts.parts import LEVELS, Level

RELEASE = 0.9


@dataclass(frozen=True)
class Limits:
    """Where the levels begin, in the queue's own unit."""

    soft: float
    hard: float

    def enters(self, level: Level) -> float:
        """The depth at which the level begins: soft, .9·hard, hard."""
        return {"none": 0.0, "soft": self.soft, "hard": max(self.soft, 0.9 * self.hard), "stop": self.hard}[level]


def rank(level: Level) -> int:
    return LEVELS.index(level)


def level_of(depth: float, limits: Limits) -> Level:
    """The level that the depth enters."""
    found: Level = "none"
    for level in LEVELS[1:]:
        if depth >= limits.enters(level):
            found = level
    return found


def next_level(depth: float, limits: Limits, before: Level) -> Level:
    """Up at once; down only 10 % below where the level was entered."""
    now = level_of(depth, limits)
    if rank(now) >= rank(before):
        return now
    held: Level = before
    while rank(held) > rank(now) and depth < RELEASE * limits.enters(held):
        held = LEVELS[rank(held) - 1]
    return held
