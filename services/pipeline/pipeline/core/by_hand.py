"""Steps that a lane leaves to people."""

from __future__ import annotations

from datetime import timedelta

from pipeline.core.iteration import Iteration
from pipeline.core.stage import DEADLINES
from sparring.contracts.base import Fact
from sparring.contracts.lanes import LEAVES
from sparring.contracts.pipeline import StepOrdered, StepRefused, TakeStep
from sparring.decider import Context


def take_step(order: TakeStep, now: Iteration, ctx: Context) -> list[Fact]:
    """Lets the iteration go on from where it waits for a person; the same order again changes nothing."""
    if order.step in now.ordered:
        return []
    reason = _refusal(order, now, ctx)
    if reason:
        return [StepRefused(iteration=order.iteration, lane=now.lane, step=order.step, by=order.by, reason=reason)]
    until = ctx.now + timedelta(seconds=DEADLINES[now.stage](ctx.settings))
    return [StepOrdered(iteration=order.iteration, lane=now.lane, step=order.step, by=order.by, deadline_at=until)]


def _refusal(order: TakeStep, now: Iteration, ctx: Context) -> str:
    needed, there = LEAVES.get(now.step), f"it is {now.stage}, step {now.step or 'none'}"
    if needed == "promote":
        return f"{there}; lifecycle decides on the model: PromoteModel or RejectModel"
    if order.step != needed:
        return f"{there}; the step that leads on is {needed}" if needed else there
    lane = ctx.picture.all.lanes.get(now.lane) if ctx.picture is not None else None
    if lane is not None and lane.spec is not None and order.step not in lane.spec.commands:
        return f"commands.{order.step} is missing in the lane's file; name the program of that step"
    return ""
