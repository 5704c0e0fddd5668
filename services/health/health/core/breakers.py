"""Moves every breaker that failures, successes or its deadline move."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from health.core.breaker import BREAKER, Breaker, Rules, Streak, next_facts
from health.core.node import Node
from health.core.picture import HealthPicture
from sparring.contracts.base import Fact
from sparring.decider import Append, Context
from sparring.subjects import Ref


def breakers(ctx: Context, picture: HealthPicture) -> Iterable[Append]:
    rules = Rules(ctx.settings.breaker_failures, ctx.settings.breaker_s, ctx.settings.breaker_most_s)
    for id, streak in picture.all.streaks.items():
        known = picture.all.breakers.get(id, Breaker())
        boot = picture.all.nodes.get(streak.about.node, Node()).boot
        if next_facts(known, streak, rules, boot, ctx.now):
            yield Append([(BREAKER, id)], partial(_moves, id, streak, rules, boot, ctx))


def _moves(id: str, streak: Streak, rules: Rules, boot: str, ctx: Context, states: Mapping[Ref, Any]) -> Sequence[Fact]:
    state = states[BREAKER.ref(id)]
    return next_facts(state, streak, rules, boot, ctx.now)


def closed_share(picture: HealthPicture) -> float:
    """Of the nodes that work and the kinds and links that were seen to work or fail: the share that is not open."""
    open_ = {id for id, one in picture.all.breakers.items() if one.state != "closed"}
    counted = len(picture.all.nodes) + sum(1 for id in picture.all.known if not id.startswith("node-"))
    known = max(counted, len(open_))
    return 1.0 - len(open_) / known if known else 1.0
