"""Models that passed their gates and wait for a person: promoted, turned down, or let go once the lane promotes by itself."""

from __future__ import annotations

from lifecycle.core.decide import superseded
from lifecycle.core.production import promotion, rebalanced, rejection
from lifecycle.core.state import Gate, Lane
from sparring.contracts.base import Fact
from sparring.contracts.lifecycle import ModelOrderRefused, PromoteModel, RejectModel
from sparring.decider import Context


def promote(order: PromoteModel, lane: Lane, ctx: Context) -> list[Fact]:
    """By a person, who names a model that passed its gate, or the only one that waits."""
    found = _waiting(order, lane)
    return [found] if isinstance(found, ModelOrderRefused) else _plays(found, lane, ctx, order.lane, order.by)


def let_go(gate: str, lane: Lane, ctx: Context, name: str) -> list[Fact]:
    """The lane promotes by itself again: the model that waits after this gate plays."""
    return _plays(lane.gates[gate], lane, ctx, name) if gate in lane.passed.values() else []


def reject(order: RejectModel, lane: Lane, ctx: Context) -> list[Fact]:  # noqa: ARG001
    found = _waiting(order, lane)
    if isinstance(found, ModelOrderRefused):
        return [found]
    turned_down = rejection(found, f"turned down by {order.by}: {order.reason}", order.lane)
    return [turned_down, rebalanced(found, lane, order.lane, plays=False)]


def _plays(gate: Gate, lane: Lane, ctx: Context, name: str, by: str = "") -> list[Fact]:
    """A candidate that beats the model which played before says nothing about the one that plays now: its gate ends."""
    late = superseded(lane, ctx, name, "another model was promoted")
    return [*late, *promotion(gate, lane, name, by), rebalanced(gate, lane, name, plays=True)]


def _waiting(order: PromoteModel | RejectModel, lane: Lane) -> Gate | ModelOrderRefused:
    """The gate of the model that the order names, of those that wait for a person."""
    matching = [gate for model, gate in lane.passed.items() if model.startswith(order.model)]
    if len(matching) == 1:
        return lane.gates[matching[0]]
    which = f"{order.model!r} names" if order.model else "there are"
    all_of_them = ", ".join(name[:12] for name in lane.passed) or "none"
    reason = f"{which} {len(matching)} models that passed their gate and wait for a person; there wait: {all_of_them}"
    return ModelOrderRefused(lane=order.lane, order=type(order).__name__, by=order.by, reason=reason)
