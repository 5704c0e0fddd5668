"""Which model of a lane plays: promotion by its gate or by a person, and what is measured of it then."""

from __future__ import annotations

from lifecycle.core.curriculum import weight
from lifecycle.core.state import Gate, Lane
from sparring.contracts.base import Fact
from sparring.contracts.lifecycle import (
    CurriculumRebalanced,
    MeasurementOpened,
    ModelPromoted,
    ModelRejected,
    Purpose,
)
from sparring.decider import Context

MONITOR_SHARE = 0.1


def by_hand(gate: Gate, ctx: Context, lane: str) -> bool:
    """Whether a person promotes what passes the gate: the lane said so when it was opened, or says so now."""
    spec = ctx.picture.all.specs.get(lane) if ctx.picture is not None else None
    return gate.by_hand or (spec is not None and "promote" not in spec.auto)


def rejection(gate: Gate, reason: str, name: str) -> ModelRejected:
    return ModelRejected(lane=name, model=gate.candidate, gate=gate.gate, reason=reason, iteration=gate.iteration)


def outdated(lane: Lane, name: str, why: str, but: str = "") -> list[Fact]:
    """Rejects models that wait for a person: they were measured against one that plays no more."""
    return [rejection(lane.gates[gate], why, name) for gate in lane.passed.values() if gate != but]


def promotion(gate: Gate, lane: Lane, name: str, by: str = "") -> list[Fact]:
    """The candidate plays from now on; others that wait for a person were measured against what played before."""
    model = lane.models[gate.candidate]
    plays = ModelPromoted(
        lane=name,
        model=gate.candidate,
        number=model.number,
        previous=lane.production,
        gate=gate.gate,
        artifact=model.artifact,
        iteration=gate.iteration,
        by=by,
    )
    late = outdated(lane, name, "another model was promoted", but=gate.gate)
    return [plays, *_measurements(gate, lane, name, model.number), *late]


def rebalanced(gate: Gate, lane: Lane, name: str, *, plays: bool) -> CurriculumRebalanced:
    """How much the lane needs to be played after its candidate came to play, or did not."""
    pairs = sum(gate.counts)
    score = sum(n * i for i, n in enumerate(gate.counts)) / (pairs * (len(gate.counts) - 1)) if pairs else None
    games = pairs * (2 if len(gate.counts) == 5 else 1)
    value, terms = weight(score, games, lane.elo_steps, has_model=bool(lane.production) or plays, promoted=plays)
    return CurriculumRebalanced(lane=name, weight=value, terms=terms)


def _measurements(gate: Gate, lane: Lane, name: str, number: int) -> list[Fact]:
    """Against the anchor, and, for a tenth of the gate's pairs, against the older model measured least."""
    facts: list[Fact] = []

    def opened(suffix: str, purpose: Purpose, baseline: str, pairs: int) -> None:
        facts.append(
            MeasurementOpened(
                lane=name,
                gate=f"{name}-{suffix}{number}",
                purpose=purpose,
                candidate=gate.candidate,
                baseline=baseline,
                pairs=pairs,
            )
        )

    if gate.rules.anchor_pairs:
        opened("a", "anchor", "", gate.rules.anchor_pairs)
    older = sorted({one for one in lane.history if one and one != gate.candidate})
    if older:
        least = min(older, key=lambda one: (lane.monitored.get(one, 0), one))
        opened("m", "monitor", least, max(10, round(MONITOR_SHARE * gate.pairs)))
    return facts


def before(lane: Lane) -> str:
    """The model that plays when the present one is rolled back: never one that was rolled back; '' is generation 0."""
    gone = {name for name, model in lane.models.items() if model.state == "rolled_back"}
    earlier = [model for model in lane.history[:-1] if model != lane.production and model not in gone]
    return earlier[-1] if earlier else ""
