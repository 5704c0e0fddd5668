"""Given facts, when something is decided, then these facts: the grammar in which cores are tested."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from sparring.contracts.base import Fact
from sparring.decider import Context, Decider, Recorded

START = datetime(2030, 1, 1, tzinfo=UTC)


def at(seconds: float) -> datetime:
    """The moment that many seconds after the scenario's start."""
    return START + timedelta(seconds=seconds)


def recorded(*facts: Fact | tuple[float, Fact], first: int = 1) -> list[Recorded]:
    """The facts as a log would hold them; `(seconds, fact)` gives one a moment of its own."""
    log = []
    for number, item in enumerate(facts, start=first):
        seconds, fact = item if isinstance(item, tuple) else (0.0, item)
        log.append(Recorded(sequence=number, at=at(seconds), fact=fact, id=f"fact-{number}"))
    return log


def fold(decider: Decider[Any], *facts: Fact | tuple[float, Fact]) -> Any:
    """The entity's state after the facts."""
    state = decider.initial
    for one in recorded(*facts):
        state = decider.evolve(state, one)
    return state


class Scenario:
    """One entity's story, told in facts."""

    def __init__(self, decider: Decider[Any], facts: Sequence[Fact | tuple[float, Fact]]) -> None:
        self.decider, self.facts, self.outcome = decider, list(facts), list[Fact]()
        self._seconds = 0.0

    def when(
        self,
        decide: Callable[[Any, Any, Context], Sequence[Fact]],
        order: Any,
        now: datetime = START,
        **context: Any,
    ) -> Scenario:
        """Decides on the order at `now`; further keywords go into the `Context`."""
        state = fold(self.decider, *self.facts)
        self._seconds = (now - START).total_seconds()
        self.outcome = list(decide(order, state, replace(Context(now=now), **context)))
        return self

    def then(self, *facts: Fact) -> Scenario:
        """Exactly these facts; the story can go on with `when`, which sees them too."""
        assert self.outcome == list(facts), f"expected {list(facts)}\n     got {self.outcome}"
        return self._told()

    def then_types(self, *types: type[Fact]) -> Scenario:
        """Facts of exactly these classes, in this order."""
        got = [type(fact) for fact in self.outcome]
        assert got == list(types), f"expected {[t.__name__ for t in types]}, got {self.outcome}"
        return self._told()

    def then_nothing(self) -> Scenario:
        return self.then()

    def asked_again_changes_nothing(
        self, decide: Callable[[Any, Any, Context], Sequence[Fact]], order: Any, now: datetime = START, **context: Any
    ) -> Scenario:
        return self.when(decide, order, now, **context).then_nothing()

    def _told(self) -> Scenario:
        self.facts += [(self._seconds, fact) for fact in self.outcome]
        return self


def given(decider: Decider[Any], *facts: Fact | tuple[float, Fact]) -> Scenario:
    """The entity's history so far."""
    return Scenario(decider, facts)
