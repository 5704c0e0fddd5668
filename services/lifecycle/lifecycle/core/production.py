"""Which model of a lane plays: promotion by its gate or by a person, and what is measured of it then."""

from __future__ import annotations

from lifecycle.core.state import Gate, Lane
from sparring.contracts.base import Fact
from sparring.contracts.lifecycle import (
    MeasurementOpened,
    ModelOrderRefused,
    ModelPromoted,
    ModelRejected,
    PromoteModel,
    Purpose,
    RejectModel,
)
from sparring.decider import Context

MONITOR_SHARE = 0.1


def by_hand(gate: Gate, ctx: Context, lane: str) -> bool:
    """Whether a person promotes what passes the gate: the lane said so when it was opened, or says so now."""
    spec = ctx.picture.all.specs.get(lane) if ctx.picture is not None else None
    return gate.by_hand or (spec is not None and "promote" not in spec.auto)


def rejection(gate: Gate, reason: str, name: str) -> ModelRejected:
    return ModelRejected(lane=name, model=gate.candidate, gate=gate.gate, reason=reason, iteration=gate.iteration)


def promote(order: PromoteModel, lane: Lane, ctx: Context) -> list[Fact]:  # noqa: ARG001
    """By a person, who names a model that passed its gate, or the only one that waits."""
    found = _waiting(order, lane)
    return [found] if isinstance(found, ModelOrderRefused) else promoted(found, lane, order.lane, order.by)


def promoted(gate: Gate, lane: Lane, name: str, by: str = "") -> list[Fact]:
    """The candidate plays from now on; others that wait for a person were measured against what played before."""
    others = [lane.gates[model.gate] for one, model in lane.waiting.items() if one != gate.candidate]
    rejected = [rejection(one, "another model was promoted", name) for one in others]
    return [*_promotion(gate, lane, name, by), *rejected]


def reject(order: RejectModel, lane: Lane, ctx: Context) -> list[Fact]:  # noqa: ARG001
    found = _waiting(order, lane)
    if isinstance(found, ModelOrderRefused):
        return [found]
    return [rejection(found, f"turned down by {order.by}: {order.reason}", order.lane)]


def _waiting(order: PromoteModel | RejectModel, lane: Lane) -> Gate | ModelOrderRefused:
    """The gate of the model that the order names, of those that wait for a person."""
    matching = [model for name, model in lane.waiting.items() if name.startswith(order.model)]
    if len(matching) == 1:
        return lane.gates[matching[0].gate]
    which = f"{order.model!r} names" if order.model else "there are"
    reason = f"{which} {len(matching)} models that passed their gate and wait for a person"
    return ModelOrderRefused(lane=order.lane, order=type(order).__name__, by=order.by, reason=reason)


def _promotion(gate: Gate, lane: Lane, name: str, by: str) -> list[Fact]:
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
    return [plays, *_measurements(gate, lane, name, model.number)]


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
