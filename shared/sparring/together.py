"""What one plan wants done, done together: decisions that join each other as one batch, the rest side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sparring.contracts.base import Fact
from sparring.decider import Action, Append, Decider, Recorded
from sparring.subjects import Ref, ref_of

# an atomic batch holds 1,000 messages; a decision of this kind makes a handful
MOST_JOINED = 64


def joined(actions: Sequence[Action], now: datetime) -> list[Action]:
    """The actions, in which appends with the same `joins`, correlation and trace are one, at the first one's place."""
    groups: dict[tuple[str, str, str, int], list[Append]] = {}
    counts: dict[tuple[str, str, str], int] = {}
    order: list[Action | tuple[str, str, str, int]] = []
    for action in actions:
        if not isinstance(action, Append) or not action.joins:
            order.append(action)
            continue
        cause = action.joins, action.correlation, action.traceparent
        number = counts.get(cause, 0)
        counts[cause] = number + 1
        key = (*cause, number // MOST_JOINED)
        if key not in groups:
            groups[key] = []
            order.append(key)
        groups[key].append(action)
    return [_one(groups[one], now) if isinstance(one, tuple) else one for one in order]


def _one(appends: Sequence[Append], now: datetime) -> Append:
    """One decision out of several: all of it is appended, or nothing."""
    if len(appends) == 1:
        return appends[0]
    deciders = {decider.ref(id): (decider, id) for one in appends for decider, id in one.entities}

    def decide(states: Mapping[Ref, Any]) -> Sequence[Fact]:
        known, facts = dict(states), list[Fact]()
        for one in appends:
            decided = one.decide({decider.ref(id): known[decider.ref(id)] for decider, id in one.entities})
            facts += decided
            for fact in decided:
                ref = ref_of(fact)
                known[ref] = _evolved(deciders[ref][0], known[ref], fact, now)
        return facts

    return Append(list(deciders.values()), decide, appends[0].correlation, appends[0].traceparent)


def _evolved(decider: Decider[Any], state: Any, fact: Fact, now: datetime) -> Any:
    # its sequence is not known yet: a decider whose state holds sequences must not join
    return decider.evolve(state, Recorded(0, now, fact))


def side_by_side(actions: Sequence[Action]) -> list[list[Action]]:
    """Chains of actions that may run at the same time: orders to one target stay in their order, appends are guarded
    by what they read."""
    chains: dict[tuple[str, ...], list[Action]] = {}
    for number, action in enumerate(actions):
        own = ("append", str(number)) if isinstance(action, Append) else (action.order.owner, action.order.id)
        chains.setdefault(own, []).append(action)
    return list(chains.values())
