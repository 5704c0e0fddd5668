"""What must hold over any log, by name: run in tests, after every event of a simulation, and by `spar doctor --log`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from sparring.contracts.base import Fact
from sparring.decider import Recorded
from sparring.invariants.custody import DataSetsHoldWhatWasAdmitted, GamesAreConserved
from sparring.invariants.effects import (
    AttemptsRise,
    NoEffectTwice,
    NoOrderObeyedTwice,
    NoVerdictWithoutGames,
    TokensRise,
)
from sparring.invariants.limits import EveryWaitHasADeadline, LeasesAreDisjoint, LimitsAreKept
from sparring.invariants.rule import Handler, Invariant

INVARIANTS: tuple[type[Invariant], ...] = (
    NoEffectTwice,
    NoOrderObeyedTwice,
    NoVerdictWithoutGames,
    LeasesAreDisjoint,
    TokensRise,
    AttemptsRise,
    LimitsAreKept,
    GamesAreConserved,
    DataSetsHoldWhatWasAdmitted,
    EveryWaitHasADeadline,
)


class Watch:
    """Invariants together over one log: `apply` each fact in order; a fact that none of them hears costs a look-up."""

    def __init__(self, kinds: Iterable[type[Invariant]] = INVARIANTS) -> None:
        self.invariants = [kind() for kind in kinds]
        self._every = [one for one in self.invariants if one.every]
        self._on: dict[type[Fact], list[tuple[str, Handler]]] = defaultdict(list)
        for one in self.invariants:
            for cls, hears in one.on.items():
                self._on[cls].append((one.name, hears))

    def apply(self, one: Recorded) -> list[str]:
        """What this fact broke: `<invariant>: <sequence>: <what>`."""
        broken = [f"{rule.name}: {text}" for rule in self._every for text in rule.apply(one)]
        for name, hears in self._on.get(type(one.fact), ()):
            broken += [f"{name}: {text}" for text in hears(one.fact, one)]
        return broken


def violations(log: Iterable[Recorded], *kinds: type[Invariant]) -> list[str]:
    """Every violation of the invariants named, of all when none is, each with the sequence at which it happened."""
    watch = Watch(kinds or INVARIANTS)
    return [text for one in log for text in watch.apply(one)]


__all__ = [
    "INVARIANTS",
    "AttemptsRise",
    "DataSetsHoldWhatWasAdmitted",
    "EveryWaitHasADeadline",
    "GamesAreConserved",
    "Invariant",
    "LeasesAreDisjoint",
    "LimitsAreKept",
    "NoEffectTwice",
    "NoOrderObeyedTwice",
    "NoVerdictWithoutGames",
    "TokensRise",
    "Watch",
    "violations",
]
