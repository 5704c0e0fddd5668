"""Limits that follow what they limit: moved by outcomes, inside their bounds, each move a fact."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sparring.contracts.health import ThresholdMoved
from sparring.contracts.parts import Term
from sparring.decider import Append, Context, Decider, Recorded

HEARTBEAT = "heartbeat-limit"
WINDOW, LEAST_OBSERVED = 100, 50
COOL_DOWN = timedelta(seconds=60)
UP, DOWN = 1.1, 0.95


@dataclass(frozen=True)
class Threshold:
    """`value` is None until it first moved: the settings' value holds then."""

    value: float
    moved_at: datetime


def evolve(threshold: Threshold | None, recorded: Recorded) -> Threshold | None:
    match recorded.fact:
        case ThresholdMoved(value=value):
            return Threshold(value, recorded.at)
    return threshold


THRESHOLD: Decider[Threshold | None] = Decider("health", "threshold", None, evolve, Threshold | None)


@dataclass(frozen=True)
class Bounds:
    """Where a threshold may be, where it starts, and the share of outcomes that should be well within it."""

    start: float
    least: float
    most: float
    target: float


def adapted(value: float, bounds: Bounds, outcomes: Sequence[bool]) -> float:
    """Where the threshold should be: wider when too few outcomes were well within it, tighter when nearly all were.

    Needs at least 50 outcomes, looks at the last 100.
    """
    seen = outcomes[-WINDOW:]
    if len(seen) < LEAST_OBSERVED:
        return value
    rate = sum(seen) / len(seen)
    if rate < bounds.target:
        value *= UP
    elif rate > (1 + bounds.target) / 2:
        value *= DOWN
    return round(min(bounds.most, max(bounds.least, value)), 3)


def moved(
    name: str, threshold: Threshold | None, bounds: Bounds, outcomes: Sequence[bool], now: datetime
) -> list[ThresholdMoved]:
    """The move that the outcomes since the last one justify; none within 60 s of it. Bounds that changed move it at once."""
    inside = min(bounds.most, max(bounds.least, bounds.start if threshold is None else threshold.value))
    before = inside if threshold is None else threshold.value
    if inside == before and threshold is not None and now < threshold.moved_at + COOL_DOWN:
        return []
    value = adapted(inside, bounds, outcomes)
    if value == before:
        return []
    seen = outcomes[-WINDOW:]
    observed = Term(name="observed", value=float(len(seen)), limit=float(LEAST_OBSERVED))
    within = Term(name="well within", value=round(sum(seen) / max(1, len(seen)), 3), limit=bounds.target)
    terms = (within, observed) if len(seen) >= LEAST_OBSERVED else (observed,)
    return [
        ThresholdMoved(threshold=name, value=value, before=before, least=bounds.least, most=bounds.most, terms=terms)
    ]


def moving(
    name: str, known: Threshold | None, bounds: Bounds, outcomes: Sequence[bool], now: datetime
) -> Iterable[Append]:
    """The decision to move, if there is one; taken again on the newest state."""
    if moved(name, known, bounds, outcomes, now):
        ref = THRESHOLD.ref(name)
        yield Append([(THRESHOLD, name)], lambda states: moved(name, states[ref], bounds, outcomes, now))


def heartbeat_limit(ctx: Context, known: Threshold | None, outcomes: Sequence[bool]) -> Iterable[Append]:
    """The silence after which a node is lost: outcomes are silences that ended, and losses that were none."""
    settings = ctx.settings
    bounds = Bounds(settings.lost_s, settings.lost_least_s, settings.lost_most_s, settings.lost_target)
    yield from moving(HEARTBEAT, known, bounds, outcomes, ctx.now)
