"""Moves every lane through its iteration: looks at where it stands, and does what is due now."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import Any

from pipeline.core.collecting import collect, export, seal
from pipeline.core.iteration import ITERATION, Iteration
from pipeline.core.judging import gate, promote, register
from pipeline.core.lane import LANE
from pipeline.core.picture import LoopPicture
from pipeline.core.stage import DEADLINES, Look, again_or_close, append_here, close, opening
from pipeline.core.training import await_slot, release, train
from sparring.apart import apart
from sparring.contracts.base import Fact
from sparring.contracts.lifecycle import CloseGate
from sparring.contracts.pipeline import StageExtended
from sparring.decider import Action, Append, Context, Send
from sparring.subjects import Ref

STEPS: dict[str, Callable[[Look], Iterable[Action]]] = {
    "games": collect,
    "seal": seal,
    "export": export,
    "slot": await_slot,
    "train": train,
    "register": register,
    "gate": gate,
    "promote": promote,
}


def plan(ctx: Context) -> Sequence[Action]:
    """Every lane is looked at apart: what goes wrong with one of them stops none of the others."""
    picture: LoopPicture = ctx.picture
    actions: list[Action] = []
    for name, lane in picture.all.lanes.items():
        if lane.spec is None:
            continue
        look = Look(
            lane, lane.spec, picture.all.open.get(name, Iteration()), picture.supply(name), picture.answers(name),
            picture.all.tasks, picture.all.production.get(name), picture.all.failures.get(name, 0),
            picture.all.last_failed.get(name), ctx,
        )  # fmt: skip
        actions += apart(LANE, name, partial(step, look))
    return actions


def step(look: Look) -> Iterable[Action]:
    """What is due for the lane. At most one fact's worth of progress at a time."""
    now = look.now
    if now.stage in ("", "closed"):
        return open_next(look) if look.spec.enabled else ()
    actions = list(STEPS[now.step](look))
    if actions and isinstance(actions[-1], Append):
        return actions
    if now.deadline_at is not None and look.ctx.now > now.deadline_at:
        return [*actions, *overdue(look)]
    return actions


def open_next(look: Look) -> Iterable[Action]:
    fact = opening(look, look.now.number + 1)
    ref = ITERATION.ref(fact.iteration)

    def decide(states: Mapping[Ref, Any]) -> Sequence[Fact]:
        return [fact] if not states[ref].stage else []

    return [Append([(ITERATION, fact.iteration)], decide, correlation=fact.iteration)]


def overdue(look: Look) -> Iterable[Action]:
    """Nothing waits for ever: games that still come extend, everything else is tried again or closed."""
    now = look.now
    if now.step == "games" or look.by_hand:
        reason = "a person paused the lane or steps by hand" if look.by_hand else "games still come in"
        deadline = look.until(DEADLINES[now.stage](look.ctx.settings))
        yield append_here(look, StageExtended(iteration=now.iteration, lane=now.lane, stage=now.stage, reason=reason,
                                          deadline_at=deadline))  # fmt: skip
        return
    if now.step == "gate":
        grace = timedelta(seconds=look.ctx.settings.promote_s)
        if now.deadline_at is not None and look.ctx.now < now.deadline_at + grace:
            order = CloseGate(lane=now.lane, gate=now.gate, reason="the evaluation's deadline passed")
            yield Send(order, key=f"close-{now.gate}", correlation=now.iteration)
            return
        yield close(look, "failed", "the gate was not decided in time")
        return
    if now.step == "train":
        yield release(look)
    yield again_or_close(look, f"{now.stage} passed its deadline")
