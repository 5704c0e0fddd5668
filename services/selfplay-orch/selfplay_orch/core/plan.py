"""Keeps every node busy: ends what is lost, places what others asked for, fills what is free with self-play."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from selfplay_orch.core.endings import endings
from selfplay_orch.core.limits import PLAN, Plan
from selfplay_orch.core.look import Look
from selfplay_orch.core.orders import orders
from selfplay_orch.core.placement import place_requested
from selfplay_orch.core.selfplay import fill
from selfplay_orch.core.shares import scores, shares, split
from sparring.contracts.base import Fact
from sparring.contracts.selfplay_orch import LaneSharesPlanned
from sparring.decider import Action, Append, Context
from sparring.subjects import Ref

# shares that moved too little for a fact are not computed anew at every call
LOOKED = timedelta(seconds=5)


def plan(ctx: Context) -> Sequence[Action]:
    """Everything that should be done now; costs what it does, and the lanes."""
    look = Look(ctx)
    ended = list(endings(look))
    placed = [*orders(look), *lane_shares(look), *place_requested(look)]
    # what is lost in this call is placed again in the next one: fresh self-play must not take its seat in between
    return [*ended, *placed] if ended else [*placed, *fill(look)]


def lane_shares(look: Look) -> Iterable[Action]:
    """The lanes' shares, when one moved by more than a point: at most one fact every `replan_s` seconds."""
    known = look.all.plan
    if known.at is not None and (look.now - known.at).total_seconds() < look.settings.replan_s:
        return
    looked_at = look.index.shares_at
    if looked_at is not None and timedelta() < look.now - looked_at < LOOKED:
        return
    look.index.shares_at = look.now
    lanes = {name: lane for name, lane in look.all.lanes.items() if lane.spec is not None}
    fresh = split(lanes, scores(lanes, look.now))
    if not fresh or not _moved(known.shares, fresh, look.settings.replan_share):
        return
    fact, ref = LaneSharesPlanned(shares=shares(lanes, look.now), read_to=look.ctx.read_to), PLAN.ref("main")

    def decide(states: Mapping[Ref, Any]) -> Sequence[Fact]:
        state: Plan = states[ref]
        return [fact] if state.at == known.at else []

    yield Append([(PLAN, "main")], decide)


def _moved(known: Mapping[str, float], fresh: Mapping[str, float], by: float) -> bool:
    return set(known) != set(fresh) or any(abs(known[lane] - share) > by + 1e-9 for lane, share in fresh.items())
