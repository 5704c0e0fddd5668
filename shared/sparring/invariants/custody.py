"""Where every game is."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

from sparring.contracts.sync import (
    BatchAdmitted,
    BatchLost,
    BatchQuarantined,
    BatchRetired,
    DatasetSealed,
    GamesRecorded,
    TransferFailed,
    TransferGranted,
)
from sparring.decider import Recorded
from sparring.invariants.rule import Handler, Invariant


class GamesAreConserved(Invariant):
    """Per lane, at every sequence: produced = admitted + in custody + in transfer + quarantined + lost."""

    PLACES = ("in custody", "in transfer", "admitted", "quarantined", "lost")

    def __init__(self) -> None:
        self._at: dict[str, tuple[str, str, int]] = {}
        self.produced: Counter[str] = Counter()
        self.places: dict[str, Counter[str]] = defaultdict(Counter)
        self.on = {
            GamesRecorded: self._recorded,
            # what counted as lost with its node is found again when that comes back
            TransferGranted: self._moves("in transfer", "in custody", "in transfer", "lost"),
            TransferFailed: self._moves("in custody", "in transfer", "in custody", "lost"),
            BatchAdmitted: self._moves("admitted", "in custody", "in transfer", "lost"),
            BatchQuarantined: self._moves("quarantined", "in custody", "in transfer", "lost"),
            BatchLost: self._moves("lost", "in custody", "in transfer"),
            BatchRetired: self._retired,
        }

    def _recorded(self, fact: GamesRecorded, one: Recorded) -> Iterator[str]:
        if fact.batch in self._at:
            yield f"{one.sequence}: {fact.batch} is produced a second time"
        self._at[fact.batch] = (fact.lane, "in custody", fact.games)
        self.produced[fact.lane] += fact.games
        self.places[fact.lane]["in custody"] += fact.games
        yield from self._balanced(fact.lane, one)

    def _moves(self, to: str, *come_from: str) -> Handler:
        def move(fact: Any, one: Recorded) -> Iterator[str]:
            lane, place, games = self._at.get(fact.batch, (getattr(fact, "lane", ""), "", 0))
            if place not in come_from:
                yield f"{one.sequence}: {fact.batch} is {to} after it was {place or 'never produced'}"
            moved: int = fact.games if hasattr(fact, "games") else games
            if place:
                self.places[lane][place] -= games
            self.places[lane][to] += moved
            self._at[fact.batch] = (lane, to, moved)
            yield from self._balanced(lane, one)

        return move

    def _retired(self, fact: BatchRetired, one: Recorded) -> Iterator[str]:
        lane, place, games = self._at.get(fact.batch, (fact.lane, "never produced", 0))
        if place != "admitted":
            yield f"{one.sequence}: {fact.batch} is retired but was {place}"
        self._at[fact.batch] = (lane, "retired", games)

    def _balanced(self, lane: str, one: Recorded) -> Iterator[str]:
        found = self.places[lane]
        total = sum(found.values())
        if total != self.produced[lane]:
            parts = ", ".join(f"{found[place]} {place}" for place in self.PLACES)
            yield f"{one.sequence}: lane {lane} produced {self.produced[lane]} games, {total} are somewhere: {parts}"
            self.produced[lane] = total


class DataSetsHoldWhatWasAdmitted(Invariant):
    """A data set names admitted batches, each once, and counts their games."""

    def __init__(self) -> None:
        self._admitted: dict[int, int] = {}
        self.on = {BatchAdmitted: self._add, BatchRetired: self._remove, DatasetSealed: self._sealed}

    def _add(self, fact: BatchAdmitted, _: Recorded) -> Iterable[str]:
        self._admitted[hash(fact.batch)] = fact.games
        return ()

    def _remove(self, fact: BatchRetired, _: Recorded) -> Iterable[str]:
        self._admitted.pop(hash(fact.batch), None)
        return ()

    def _sealed(self, fact: DatasetSealed, one: Recorded) -> Iterator[str]:
        names = [batch.batch for batch in fact.batches]
        if len(set(names)) != len(names):
            yield f"{one.sequence}: the data set of {fact.iteration} names a batch twice"
        for batch in fact.batches:
            if self._admitted.get(hash(batch.batch)) != batch.games:
                yield f"{one.sequence}: the data set of {fact.iteration} holds {batch.batch}, which is not admitted so"
        if sum(batch.games for batch in fact.batches) != fact.games:
            yield f"{one.sequence}: the data set of {fact.iteration} says {fact.games} games, its batches hold others"
