"""Leases, limits and deadlines."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

from sparring.contracts.base import FACTS, Fact
from sparring.contracts.health import ObservationLost
from sparring.contracts.pipeline import IterationClosed, StepRefused
from sparring.contracts.selfplay_orch import LaneBoosted, SeatTaken, SpawnAdmitted
from sparring.contracts.sync import TransferAdmitted, TransferGranted
from sparring.contracts.training_slots import (
    ClaimQueued,
    LaneHeldBack,
    PreemptionAsked,
    SlotClaimed,
    SlotExpired,
    SlotPreempted,
    SlotReleased,
    SlotRenewed,
)
from sparring.decider import Recorded
from sparring.invariants.rule import Handler, Invariant


class LeasesAreDisjoint(Invariant):
    """No lane's slot is claimed while it is held, never more slots than there are, and only the holder's token acts."""

    def __init__(self) -> None:
        self._held: dict[str, int] = {}
        self.on = {SlotClaimed: self._claimed, SlotRenewed: self._current, PreemptionAsked: self._current}
        self.on |= dict.fromkeys((SlotReleased, SlotExpired, SlotPreempted), self._ended)

    def _claimed(self, fact: SlotClaimed, one: Recorded) -> Iterator[str]:
        if fact.lane in self._held:
            yield f"{one.sequence}: lane {fact.lane} claimed while token {self._held[fact.lane]} holds"
        self._held[fact.lane] = one.sequence
        if len(self._held) > fact.limit:
            yield f"{one.sequence}: {len(self._held)} slots held, {fact.limit} are there"

    def _current(self, fact: Any, one: Recorded) -> Iterator[str]:
        holds = self._held.get(fact.lane)
        if holds != fact.token:
            yield f"{one.sequence}: {type(fact).__name__} with token {fact.token}, lane {fact.lane} is held by {holds}"

    def _ended(self, fact: Any, one: Recorded) -> Iterator[str]:
        yield from self._current(fact, one)
        self._held.pop(fact.lane, None)


class LimitsAreKept(Invariant):
    """What is admitted fits its limit, as counted by its decision and as counted again from the log: seats of a node,
    tasks of a kind, transfers of the cluster."""

    def __init__(self) -> None:
        self._running: dict[str, dict[str, str]] = defaultdict(dict)
        self.on = {SeatTaken: self._seat, SpawnAdmitted: self._spawn, TransferAdmitted: self._transfer}

    def _seat(self, fact: SeatTaken, one: Recorded) -> Iterator[str]:
        running = self._counted(f"node {fact.node}", fact.task, fact.kind, fact.freed)
        return self._kept(fact, one, sum(kind == fact.kind for kind in running.values()), f"node {fact.node}")

    def _spawn(self, fact: SpawnAdmitted, one: Recorded) -> Iterator[str]:
        return self._kept(fact, one, len(self._counted(f"kind {fact.kind}", fact.task, "", fact.freed)), fact.kind)

    def _transfer(self, fact: TransferAdmitted, one: Recorded) -> Iterator[str]:
        running = self._counted(f"quota {fact.quota}", fact.batch, "", fact.freed)
        return self._kept(fact, one, len(running), fact.quota)

    def _counted(self, guard: str, name: str, kind: str, freed: Iterable[str]) -> dict[str, str]:
        running = self._running[guard]
        for gone in freed:
            running.pop(gone, None)
        running[name] = kind
        return running

    def _kept(self, fact: Any, one: Recorded, counted: int, where: str) -> Iterator[str]:
        if max(fact.running, counted) > fact.limit:
            yield (
                f"{one.sequence}: {type(fact).__name__} of {where} with {fact.running} of {fact.limit}, {counted} by count"
            )


class EveryWaitHasADeadline(Invariant):
    """Nothing waits for ever: stages, grants, leases, claims, holds and boosts say until when, and not in the past."""

    UNTIL: tuple[tuple[type[Fact], str], ...] = (
        (TransferGranted, "until"),
        (SlotClaimed, "until"),
        (SlotRenewed, "until"),
        (ClaimQueued, "expires_at"),
        (PreemptionAsked, "until"),
        (LaneHeldBack, "until"),
        (LaneBoosted, "until"),
        (ObservationLost, "until"),
    )

    def __init__(self) -> None:
        stages = {
            cls: "deadline_at"
            for cls in FACTS.values()
            if (cls.owner, cls.entity) == ("pipeline", "iteration") and cls not in (IterationClosed, StepRefused)
        }
        self.on = {cls: self._waits(field) for cls, field in {**stages, **dict(self.UNTIL)}.items()}

    def _waits(self, field: str) -> Handler:
        def wait(fact: Fact, one: Recorded) -> Iterator[str]:
            until: datetime | None = getattr(fact, field, None)
            if until is None:
                yield f"{one.sequence}: {type(fact).__name__} of {fact.id} without a deadline"
            elif until < one.at:
                yield f"{one.sequence}: {type(fact).__name__} of {fact.id} waits until a moment that had passed"

        return wait
