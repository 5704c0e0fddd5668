"""What time alone brings about: leases and claims end, waiting lanes are served."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import TypeAdapter

from sparring.contracts.base import Fact
from sparring.decider import Action, Append, Context, Recorded
from sparring.subjects import Ref
from training_slots.core.decide import expire
from training_slots.core.evolve import MAIN, POOL, evolve
from training_slots.core.state import Pool

_ADAPTER = TypeAdapter(Pool)


class PoolPicture:
    """The pool itself: one entity is the whole picture."""

    def __init__(self) -> None:
        self.pool = Pool()

    def apply(self, recorded: Recorded) -> None:
        if recorded.fact.owner == "training-slots" and recorded.fact.entity == "pool":
            self.pool = evolve(self.pool, recorded)

    def dump(self) -> Any:
        return _ADAPTER.dump_python(self.pool, mode="json")

    def load(self, data: Any) -> None:
        self.pool = _ADAPTER.validate_python(data)


def plan(ctx: Context) -> Sequence[Action]:
    if not expire(ctx.picture.pool, ctx.now, ctx.settings.slots):
        return []

    def decide(states: Mapping[Ref, Any]) -> Sequence[Fact]:
        return expire(states[POOL.ref(MAIN)], ctx.now, ctx.settings.slots)

    return [Append([(POOL, MAIN)], decide)]
