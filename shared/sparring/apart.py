"""A plan looks at many entities of a kind: what goes wrong with one of them stops none of the others, and is said."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from sparring.contracts.base import Fact
from sparring.decider import Action, Append, Decider
from sparring.subjects import Ref


def apart(decider: Decider[Any], id: str, look: Callable[[], Iterable[Action]]) -> Sequence[Action]:
    """What is due for one entity; where looking at it fails, an append that raises that failure when it is carried out.

    Chains of actions are carried out side by side, and each that fails is counted and logged with its trace: so the
    failure is as loud as a planner's own, at every tick, and reaches no further than its entity.
    """
    try:
        return list(look())
    # not swallowed: raised again when it is carried out
    except Exception as error:  # noqa: BLE001
        return [Append([(decider, id)], partial(_fails, error))]


def _fails(error: Exception, _: Mapping[Ref, Any]) -> Sequence[Fact]:
    raise error
