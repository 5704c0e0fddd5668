"""Each invariant, broken once: a rule that can't go red proves nothing."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from sparring.contracts.base import Fact
from sparring.contracts.lifecycle import FenceRaised, GateDecided, ModelPromoted, ModelRegistered
from sparring.contracts.pipeline import IterationClosed, TrainingStarted
from sparring.contracts.selfplay_orch import SeatTaken, SpawnAdmitted, TaskAssigned, TaskFinished
from sparring.contracts.sync import (
    BatchAdmitted,
    BatchLost,
    BatchQuarantined,
    BatchRetired,
    DatasetSealed,
    GamesRecorded,
    TransferAdmitted,
    TransferFailed,
    TransferGranted,
)
from sparring.contracts.training_slots import SlotClaimed, SlotExpired, SlotReleased, SlotRenewed
from sparring.invariants import INVARIANTS, GamesAreConserved, Watch, violations
from sparring.log.guards import GuardCheck
from sparring.log.interface import Raw
from sparring.schema_files import sample_path
from sparring.testing import at, recorded

SOON = at(100)


def a(cls: type[Fact], **values: Any) -> Any:
    """The committed sample of the fact with these values."""
    return cls.model_validate_json(sample_path(cls).read_text()).model_copy(update=values)


def batch(name: str = "b", games: int = 10) -> Any:
    return a(GamesRecorded, batch=name, lane="hex", games=games)


def admitted(name: str = "b", games: int = 10) -> Any:
    return a(BatchAdmitted, batch=name, lane="hex", games=games)


def sealed(*names: str, games: int) -> Any:
    one = a(DatasetSealed).batches
    refs = tuple(replace_ref(one[0], name) for name in names)
    return a(DatasetSealed, iteration="hex-1", lane="hex", batches=refs, games=games)


def replace_ref(ref: Any, name: str) -> Any:
    return ref.model_copy(update={"batch": name, "games": 10})


def registered(token: int, model: str = "a" * 64) -> Any:
    lineage = a(ModelRegistered).lineage.model_copy(update={"slot_token": token})
    return a(ModelRegistered, lane="hex", model=model, lineage=lineage)


def claimed(lane: str, limit: int = 2) -> Any:
    return a(SlotClaimed, lane=lane, limit=limit, until=SOON)


def seat(task: str, running: int, *freed: str) -> Any:
    return a(SeatTaken, node="n", kind="selfplay", task=task, freed=freed, running=running, limit=2)


def passed(counts: tuple[int, ...]) -> Any:
    return a(GateDecided, gate="g", verdict="passed", counts=counts, baseline="")


BROKEN: list[tuple[str, str, list[Fact]]] = [
    ("NoEffectTwice", "IterationClosed of hex-1 a second time", [a(IterationClosed, iteration="hex-1")] * 2),
    ("NoEffectTwice", "TaskFinished of t a second time", [a(TaskFinished, task="t", superseded=False)] * 2),
    ("NoVerdictWithoutGames", "gate g passed without games", [passed((0, 0, 0))]),
    ("NoVerdictWithoutGames", "gate g never passed", [a(ModelPromoted, gate="g")]),
    ("NoVerdictWithoutGames", "replaces another one than gate g measured", [
        passed((1, 2, 3)), a(ModelPromoted, gate="g", previous="other"),
    ]),
    ("LeasesAreDisjoint", "lane hex claimed while token 1 holds", [claimed("hex"), claimed("hex")]),
    ("LeasesAreDisjoint", "3 slots held, 2 are there", [claimed("a"), claimed("b"), claimed("c")]),
    ("LeasesAreDisjoint", "SlotRenewed with token 7", [claimed("hex"), a(SlotRenewed, lane="hex", token=7, until=SOON)]),
    ("LeasesAreDisjoint", "lane hex is held by None", [claimed("hex"), a(SlotExpired, lane="hex", token=1), a(SlotReleased, lane="hex", token=1)]),
    ("TokensRise", "token 4 after 9 in lane hex", [registered(9), registered(4, "b" * 64)]),
    ("TokensRise", "token 4 after 9 in lane hex", [a(FenceRaised, lane="hex", token=9), registered(4)]),
    ("AttemptsRise", "attempt 1 of t a second time", [a(TaskAssigned, task="t", attempt=1)] * 2),
    ("LimitsAreKept", "with 3 of 2", [seat("a", 1), seat("b", 2), seat("c", 3)]),
    ("LimitsAreKept", "3 by count", [seat("a", 1), seat("b", 2), seat("c", 2)]),
    ("LimitsAreKept", "SpawnAdmitted of train with 4 of 3", [a(SpawnAdmitted, kind="train", running=4, limit=3)]),
    ("LimitsAreKept", "TransferAdmitted of main with 9 of 8", [a(TransferAdmitted, running=9, limit=8, quota="main")]),
    ("GamesAreConserved", "b is admitted after it was never produced", [admitted()]),
    ("GamesAreConserved", "produced 10 games, 60 are somewhere", [batch(), admitted(games=60)]),
    ("GamesAreConserved", "b is admitted after it was admitted", [batch(), admitted(), admitted()]),
    ("GamesAreConserved", "b is lost after it was admitted", [batch(), admitted(), a(BatchLost, batch="b", games=10)]),
    ("GamesAreConserved", "b is retired but was in custody", [batch(), a(BatchRetired, batch="b")]),
    ("GamesAreConserved", "b is produced a second time", [batch(), batch()]),
    ("DataSetsHoldWhatWasAdmitted", "holds b, which is not admitted so", [batch(), sealed("b", games=10)]),
    ("DataSetsHoldWhatWasAdmitted", "names a batch twice", [batch(), admitted(), sealed("b", "b", games=20)]),
    ("DataSetsHoldWhatWasAdmitted", "says 11 games", [batch(), admitted(), sealed("b", games=11)]),
    ("EveryWaitHasADeadline", "TrainingStarted of hex-1 without a deadline", [a(TrainingStarted, iteration="hex-1", deadline_at=None)]),
    ("EveryWaitHasADeadline", "a moment that had passed", [a(TransferGranted, batch="b", until=at(-1))]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "text", "facts"), BROKEN, ids=lambda value: value if isinstance(value, str) else "")
def test_an_invariant_goes_red_where_it_is_broken(name: str, text: str, facts: list[Fact]) -> None:
    found = violations(recorded(*facts))
    assert any(one.startswith(f"{name}: {len(facts)}: ") and text in one for one in found), found


def test_an_order_obeyed_twice_is_seen() -> None:
    far = [replace(one, order="o") for one in (*recorded(batch("a")), *recorded(batch("b"), first=9))]
    assert violations(far) == ["NoOrderObeyedTwice: 9: order o was obeyed at 1 already"]
    together = [replace(one, order="o") for one in recorded(batch("a"), batch("b"))]
    assert violations(together) == []


def test_every_invariant_has_a_case_in_which_it_goes_red() -> None:
    assert {one.__name__ for one in INVARIANTS} == {name for name, _, _ in BROKEN} | {"NoOrderObeyedTwice"}


def test_a_sound_log_breaks_nothing() -> None:
    log = recorded(
        batch(), a(TransferGranted, batch="b", until=SOON), a(TransferAdmitted, batch="b", running=1, limit=8),
        a(TransferFailed, batch="b"), a(TransferGranted, batch="b", until=SOON), admitted(), sealed("b", games=10),
        batch("c", 7), a(BatchQuarantined, batch="c", lane="hex", games=7), claimed("hex"),
        a(SlotRenewed, lane="hex", token=10, until=SOON), a(SlotReleased, lane="hex", token=10), claimed("hex"),
        seat("a", 1), seat("b", 2), seat("c", 2, "a"), passed((1, 2, 3)), a(ModelPromoted, gate="g", previous=""),
        batch("d", 5), a(BatchLost, batch="d", games=5), a(TransferGranted, batch="d", until=SOON), admitted("d", 5),
    )  # fmt: skip
    assert violations(log) == []


def test_the_balance_of_a_lane_is_known_at_every_sequence() -> None:
    watch = Watch([GamesAreConserved])
    rule = watch.invariants[0]
    assert isinstance(rule, GamesAreConserved)
    for one in recorded(batch(), batch("c", 7), a(TransferGranted, batch="b", until=SOON), admitted()):
        assert watch.apply(one) == []
        assert sum(rule.places["hex"].values()) == rule.produced["hex"]
    assert {place: games for place, games in rule.places["hex"].items() if games} == {"admitted": 10, "in custody": 7}


# ---- guards: over the messages themselves

SUBJECT = "evt.sync.batch.{}.GamesRecorded"


def message(sequence: int, id: str, expected: int | None, *, batch: str = "", pattern: str = "") -> Raw:
    headers = {"Nats-Batch-Id": batch} if batch else {}
    if expected is not None:
        headers["Nats-Expected-Last-Subject-Sequence"] = str(expected)
        headers["Nats-Expected-Last-Subject-Sequence-Subject"] = pattern or f"evt.sync.batch.{id}.>"
    return Raw(sequence, at(0) + timedelta(seconds=sequence), SUBJECT.format(id), headers, b"{}")


def guarded(*messages: Raw) -> list[str]:
    return GuardCheck().take(messages)


def test_an_append_without_its_guard_is_seen() -> None:
    assert guarded(message(1, "b", 0), message(2, "b", 1), message(3, "c", 0)) == []
    assert "without an expected sequence" in guarded(message(1, "b", None))[0]
    assert "over evt.sync.batch.>" in guarded(message(1, "b", 0, pattern="evt.sync.batch.>"))[0]
    assert (
        "was let through on sequence 0, but its entity stood at 1" in guarded(message(1, "b", 0), message(2, "b", 0))[0]
    )


def test_a_batch_is_guarded_by_the_first_message_of_each_entity() -> None:
    assert guarded(message(1, "b", 0, batch="x"), message(2, "b", None, batch="x"), message(3, "c", 0, batch="x")) == []
    assert "without an expected sequence" in guarded(message(1, "b", 0, batch="x"), message(2, "c", None, batch="x"))[0]
    assert "that its own batch has moved" in guarded(message(1, "b", 0, batch="x"), message(2, "b", 1, batch="x"))[0]


def test_what_was_purged_is_believed() -> None:
    assert guarded(message(11, "b", 7)) == []
    assert guarded(message(11, "b", 12)) != []
