"""What happens once, in order, and on evidence."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from sparring.contracts.base import Fact
from sparring.contracts.lifecycle import FenceRaised, GateDecided, ModelPromoted, ModelRegistered
from sparring.contracts.pipeline import IterationClosed, IterationOpened
from sparring.contracts.selfplay_orch import TaskAssigned, TaskFinished
from sparring.contracts.sync import BatchAdmitted, DatasetSealed, GamesRecorded
from sparring.decider import Recorded
from sparring.invariants.rule import Handler, Invariant


class NoEffectTwice(Invariant):
    """A batch is admitted once, an iteration closed once, a gate decided once, whatever was delivered twice."""

    ONCE: tuple[tuple[type[Fact], str], ...] = (
        (GamesRecorded, "batch"),
        (BatchAdmitted, "batch"),
        (IterationOpened, "iteration"),
        (IterationClosed, "iteration"),
        (ModelRegistered, "model"),
        (GateDecided, "gate"),
        (ModelPromoted, "gate"),
    )

    def __init__(self) -> None:
        self._seen: set[int] = set()
        once: dict[type[Fact], Handler] = {cls: self._once(cls.__name__, key) for cls, key in self.ONCE}
        once[TaskFinished], once[DatasetSealed] = self._finished, self._sealed
        self.on = once

    def _once(self, name: str, key: str) -> Handler:
        return lambda fact, one: self._first(name, str(getattr(fact, key)), one)

    def _finished(self, fact: TaskFinished, one: Recorded) -> Iterator[str]:
        if not fact.superseded:
            yield from self._first("TaskFinished", fact.task, one)

    def _sealed(self, fact: DatasetSealed, one: Recorded) -> Iterator[str]:
        yield from self._first("DatasetSealed", f"{fact.iteration}/{fact.attempt}", one)

    def _first(self, name: str, id: str, one: Recorded) -> Iterator[str]:
        # 64 bits a name: among ten million of them two share a hash in one log of 400,000
        place = hash((name, id))
        if place in self._seen:
            yield f"{one.sequence}: {name} of {id} a second time"
        self._seen.add(place)


class NoOrderObeyedTwice(Invariant):
    """All facts of one order lie together: a second obedience would append more of them later."""

    # an atomic batch touches at most three entities, and each may be carried forward in between
    TOGETHER = 4
    every = True

    def __init__(self) -> None:
        self._last: dict[int, int] = {}

    def apply(self, one: Recorded) -> Iterable[str]:
        if not one.order:
            return ()
        order = hash(one.order)
        before = self._last.get(order, one.sequence)
        self._last[order] = one.sequence
        far = one.sequence > before + self.TOGETHER
        return (f"{one.sequence}: order {one.order} was obeyed at {before} already",) if far else ()


class NoVerdictWithoutGames(Invariant):
    """A gate passes on games that were played; only what passed is promoted, and in the place of the model that it beat."""

    def __init__(self) -> None:
        # by gate, its baseline
        self._passed: dict[int, int] = {}
        self.on = {GateDecided: self._decided, ModelPromoted: self._promoted}

    def _decided(self, fact: GateDecided, one: Recorded) -> Iterator[str]:
        if fact.verdict != "passed":
            return
        self._passed[hash(fact.gate)] = hash(fact.baseline)
        if sum(fact.counts) == 0:
            yield f"{one.sequence}: gate {fact.gate} passed without games"

    def _promoted(self, fact: ModelPromoted, one: Recorded) -> Iterator[str]:
        beaten = self._passed.pop(hash(fact.gate), None)
        if beaten is None:
            yield f"{one.sequence}: model {fact.number} of {fact.lane} is promoted, gate {fact.gate} never passed"
        elif beaten != hash(fact.previous):
            yield f"{one.sequence}: model {fact.number} of {fact.lane} replaces another one than gate {fact.gate} measured"


class TokensRise(Invariant):
    """No model is registered under an older fencing token than its lane has seen: it would be a late writer's."""

    def __init__(self) -> None:
        self._highest: dict[str, int] = {}
        self.on = {ModelRegistered: self._registered, FenceRaised: self._raised}

    def _registered(self, fact: ModelRegistered, one: Recorded) -> Iterator[str]:
        return self._rise(fact.lane, fact.lineage.slot_token, one)

    def _raised(self, fact: FenceRaised, one: Recorded) -> Iterator[str]:
        return self._rise(fact.lane, fact.token, one)

    def _rise(self, lane: str, token: int, one: Recorded) -> Iterator[str]:
        highest = self._highest.get(lane, 0)
        if token < highest:
            yield f"{one.sequence}: token {token} after {highest} in lane {lane}"
        self._highest[lane] = max(token, highest)


class AttemptsRise(Invariant):
    """A task's attempt is placed once; the next one has a higher number."""

    def __init__(self) -> None:
        self._last: dict[str, int] = {}
        self.on = {TaskAssigned: self._assigned, TaskFinished: self._finished}

    def _assigned(self, fact: TaskAssigned, one: Recorded) -> Iterator[str]:
        if fact.attempt <= self._last.get(fact.task, 0):
            yield f"{one.sequence}: attempt {fact.attempt} of {fact.task} a second time"
        self._last[fact.task] = fact.attempt

    def _finished(self, fact: TaskFinished, _: Recorded) -> Iterator[str]:
        # what finished is never placed again: NoEffectTwice holds that, this need not remember it
        if not fact.superseded:
            self._last.pop(fact.task, None)
        yield from ()
