"""The cluster's health as one number with its parts."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sparring.contracts.health import HealthScored
from sparring.contracts.parts import Term
from sparring.decider import Decider, Recorded

GRADES = ((0.80, "healthy"), (0.60, "degraded"), (0.40, "unhealthy"), (0.0, "critical"))
WEIGHTS = {"nodes": 0.40, "breakers": 0.25, "errors": 0.20, "recovery": 0.15}
BELOW_HEALTHY = 0.79


@dataclass(frozen=True)
class Parts:
    """Each in [0, 1]; `silent` are the services that nobody hears."""

    nodes: float = 1.0
    breakers: float = 1.0
    errors: float = 1.0
    recovery: float = 1.0
    silent: tuple[str, ...] = ()

    @property
    def value(self) -> float:
        """.40 nodes + .25 breakers + .20 errors + .15 recovery; not better than degraded while a service is silent."""
        value = float(sum(weight * getattr(self, name) for name, weight in WEIGHTS.items()))
        return round(min(value, BELOW_HEALTHY) if self.silent else value, 4)

    @property
    def grade(self) -> Any:
        return next(name for least, name in GRADES if self.value >= least)

    @property
    def terms(self) -> tuple[Term, ...]:
        named = tuple(Term(name=name, value=round(getattr(self, name), 4)) for name in WEIGHTS)
        return (*named, Term(name="silent services", value=float(len(self.silent)), limit=0.0))


@dataclass(frozen=True)
class Score:
    value: float = -1.0
    grade: str = ""
    at: datetime | None = None


def evolve(score: Score, recorded: Recorded) -> Score:
    match recorded.fact:
        case HealthScored(value=value, grade=grade):
            return Score(value, grade, recorded.at)
    return score


SCORE = Decider("health", "score", Score(), evolve)
