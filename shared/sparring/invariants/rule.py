"""What an invariant is: a rule that takes in one fact at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

from sparring.contracts.base import Fact
from sparring.decider import Recorded

Handler = Callable[[Any, Recorded], Iterable[str]]


class Invariant:
    """One rule over the log; its docstring is the rule. `on` lists which facts it hears; `every` overrides that.

    It keeps only what it must compare (a few numbers per batch, order or lane), so a log of any length streams through.
    """

    every: ClassVar[bool] = False
    on: Mapping[type[Fact], Handler] = {}  # an instance binds its own

    @property
    def name(self) -> str:
        return type(self).__name__

    def apply(self, one: Recorded) -> Iterable[str]:
        """Takes in the next fact of the log; says what it broke, each with its sequence."""
        hears = self.on.get(type(one.fact))
        return hears(one.fact, one) if hears is not None else ()
