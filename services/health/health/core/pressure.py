"""Back-pressure of a queue: ordered levels, with hysteresis, where worse input never gives a milder level."""

from __future__ import annotations

from dataclasses import dataclass

from sparring.contracts.health import BackpressureChanged
from sparring.contracts.parts import LEVELS, Level
from sparring.decider import Decider, Recorded

RELEASE = 0.9


@dataclass(frozen=True)
class Queue:
    level: Level = "none"


def evolve(queue: Queue, recorded: Recorded) -> Queue:
    match recorded.fact:
        case BackpressureChanged(level=level):
            return Queue(level)
    return queue


QUEUE = Decider("health", "queue", Queue(), evolve)


@dataclass(frozen=True)
class Limits:
    """Where the levels begin and what to aim for, in the queue's own unit."""

    soft: float
    hard: float
    target: float = 0.0

    def enters(self, level: Level) -> float:
        """The depth at which the level begins: soft, .9·hard, hard."""
        return {"none": 0.0, "soft": self.soft, "hard": max(self.soft, 0.9 * self.hard), "stop": self.hard}[level]


# batches, gates, decided candidates, data sets
SYNC = Limits(100, 500, 50)
EVALUATION = Limits(50, 200, 20)
PROMOTION = Limits(10, 50, 5)
EXPORT = Limits(20, 100, 10)
# critical ones among the nodes that are known
CRITICAL_NODES = Limits(0.25, 0.5, 0.0)


def rank(level: Level) -> int:
    return LEVELS.index(level)


def level_of(depth: float, limits: Limits) -> Level:
    """The level that the depth enters."""
    found: Level = "none"
    for level in LEVELS[1:]:
        if depth >= limits.enters(level):
            found = level
    return found


def next_level(depth: float | None, limits: Limits, before: Level) -> Level:
    """Up at once; down only 10 % below where the level was entered; a depth that is unknown changes nothing."""
    if depth is None:
        return before
    now = level_of(depth, limits)
    if rank(now) >= rank(before):
        return now
    held: Level = before
    while rank(held) > rank(now) and depth < RELEASE * limits.enters(held):
        held = LEVELS[rank(held) - 1]
    return held
