"""What must hold over any log, by name: run in tests, and over a real log by `spar doctor --log`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from sparring.contracts.base import Fact
from sparring.contracts.lifecycle import GateDecided, ModelPromoted, ModelRegistered
from sparring.contracts.pipeline import IterationClosed, IterationOpened
from sparring.contracts.selfplay_orch import SeatTaken, SpawnAdmitted, TaskAssigned, TaskFinished
from sparring.contracts.sync import (
    BatchAdmitted,
    BatchLost,
    BatchQuarantined,
    BatchRetired,
    DatasetSealed,
    GamesRecorded,
    TransferAdmitted,
)
from sparring.contracts.training_slots import SlotClaimed, SlotExpired, SlotPreempted, SlotReleased
from sparring.decider import Recorded

Log = Sequence[Recorded]
ONCE: tuple[tuple[type[Fact], str], ...] = (
    (GamesRecorded, "batch"),
    (BatchAdmitted, "batch"),
    (DatasetSealed, "iteration"),
    (IterationOpened, "iteration"),
    (IterationClosed, "iteration"),
    (ModelRegistered, "model"),
    (GateDecided, "gate"),
    (ModelPromoted, "gate"),
)


def no_effect_twice(log: Log) -> Iterator[str]:
    """A batch is admitted once, an iteration closed once, a gate decided once, whatever was delivered twice."""
    seen: set[tuple[str, str]] = set()
    for one in log:
        for cls, key in ONCE:
            if isinstance(one.fact, cls):
                place = (cls.__name__, str(getattr(one.fact, key)))
                if place in seen:
                    yield f"{one.sequence}: {place[0]} of {place[1]} a second time"
                seen.add(place)


def no_task_finishes_twice(log: Log) -> Iterator[str]:
    done: set[str] = set()
    for one in log:
        if isinstance(one.fact, TaskFinished) and not one.fact.superseded:
            if one.fact.task in done:
                yield f"{one.sequence}: task {one.fact.task} finished a second time"
            done.add(one.fact.task)


def no_order_obeyed_twice(log: Log) -> Iterator[str]:
    """All facts of one order lie together: a second obedience would append more of them later."""
    last: dict[str, int] = {}
    for one in log:
        if not one.order:
            continue
        before = last.get(one.order)
        if before is not None and one.sequence > before + 2:
            yield f"{one.sequence}: order {one.order} was obeyed at {before} already"
        last[one.order] = one.sequence


def no_verdict_without_games(log: Log) -> Iterator[str]:
    for one in log:
        if isinstance(one.fact, GateDecided) and one.fact.verdict == "passed" and sum(one.fact.counts) == 0:
            yield f"{one.sequence}: gate {one.fact.gate} passed without games"


def leases_are_disjoint(log: Log) -> Iterator[str]:
    """No lane's slot is claimed while it is held, and never more slots than there are."""
    held: dict[str, int] = {}
    for one in log:
        match one.fact:
            case SlotClaimed(lane=lane, limit=limit):
                if lane in held:
                    yield f"{one.sequence}: lane {lane} claimed while token {held[lane]} holds"
                held[lane] = one.sequence
                if len(held) > limit:
                    yield f"{one.sequence}: {len(held)} slots held, {limit} are there"
            case SlotReleased(lane=lane) | SlotExpired(lane=lane) | SlotPreempted(lane=lane):
                held.pop(lane, None)


def tokens_rise(log: Log) -> Iterator[str]:
    """A model registered under an older fencing token than the lane has seen would be a late writer's."""
    highest: dict[str, int] = {}
    for one in log:
        if isinstance(one.fact, ModelRegistered):
            token = one.fact.lineage.slot_token
            if token < highest.get(one.fact.lane, 0):
                yield f"{one.sequence}: token {token} after {highest[one.fact.lane]} in lane {one.fact.lane}"
            highest[one.fact.lane] = max(token, highest.get(one.fact.lane, 0))


def limits_are_kept(log: Log) -> Iterator[str]:
    for one in log:
        fact = one.fact
        if isinstance(fact, SeatTaken | SpawnAdmitted | TransferAdmitted) and fact.running > fact.limit:
            yield f"{one.sequence}: {type(fact).__name__} with {fact.running} of {fact.limit}"


def games_are_conserved(log: Log) -> Iterator[str]:
    """Every game that was produced is in exactly one place: admitted, held, moving, quarantined or lost."""
    produced: dict[str, int] = {}
    ended: dict[str, str] = {}
    for one in log:
        match one.fact:
            case GamesRecorded(batch=batch, games=games):
                produced[batch] = games
            case BatchAdmitted(batch=batch, games=games) | BatchQuarantined(batch=batch, games=games):
                if produced.get(batch) != games or batch in ended:
                    yield f"{one.sequence}: {batch} with {games} games, {produced.get(batch)} were produced; was {ended.get(batch)}"
                ended[batch] = type(one.fact).__name__
            case BatchLost(batch=batch):
                if batch in ended or batch not in produced:
                    yield f"{one.sequence}: {batch} is lost after {ended.get(batch)}"
                ended[batch] = "BatchLost"
            case BatchRetired(batch=batch):
                if ended.get(batch) != "BatchAdmitted":
                    yield f"{one.sequence}: {batch} is retired but was never admitted"


def every_wait_has_a_deadline(log: Log) -> Iterator[str]:
    for one in log:
        waits = one.fact.owner == "pipeline" and one.fact.entity == "iteration"
        if waits and not isinstance(one.fact, IterationClosed) and getattr(one.fact, "deadline_at", None) is None:
            yield f"{one.sequence}: {type(one.fact).__name__} of {one.fact.id} without a deadline"


def attempts_rise(log: Log) -> Iterator[str]:
    last: dict[str, int] = {}
    for one in log:
        if isinstance(one.fact, TaskAssigned):
            if one.fact.attempt <= last.get(one.fact.task, 0):
                yield f"{one.sequence}: attempt {one.fact.attempt} of {one.fact.task} a second time"
            last[one.fact.task] = one.fact.attempt


INVARIANTS: tuple[Callable[[Log], Iterable[str]], ...] = (
    no_effect_twice,
    no_task_finishes_twice,
    no_order_obeyed_twice,
    no_verdict_without_games,
    leases_are_disjoint,
    tokens_rise,
    limits_are_kept,
    games_are_conserved,
    every_wait_has_a_deadline,
    attempts_rise,
)


def violations(log: Log) -> list[str]:
    """Every violation of every invariant, each with the sequence at which it happened."""
    return [f"{check.__name__}: {text}" for check in INVARIANTS for text in check(log)]
