"""Dead letters go again by themselves: on their schedule, ten at a time, and once for each new build."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import given as examples
from hypothesis import strategies as st

from health.core.letter import DeadLetter
from health.core.picture import HealthPicture
from health.core.plan import plan
from health.core.redriving import builds_behind, due
from health.settings import Settings
from sparring.contracts.health import (
    AlarmCleared,
    AlarmRaised,
    DeadLetterAbandoned,
    DeadLetterDiscarded,
    DeadLetterFailedAgain,
    DeadLetterRecorded,
    DeadLetterRecovered,
    DeadLetterRedriven,
)
from sparring.contracts.readings import ServiceBeat
from sparring.decider import Reading
from sparring.testing import at
from sparring.testing.world import World

OLD, NEW = "1 aaa", "2 bbb"


def recorded(
    number: int, *, transient: bool = True, due_s: float = 60, build: str = OLD, exception: str = "E"
) -> DeadLetterRecorded:
    return DeadLetterRecorded(letter=f"sync-COMMANDS-{number}", consumer="sync", stream="COMMANDS", stream_sequence=number,
                              subject="s", message_type="m", cause="terminated", transient=transient, reason="r",
                              exception=exception, fingerprint="f", deliveries=5, trace="", build=build,
                              due_at=at(due_s) if transient else None)  # fmt: skip


def world(*facts: object, build: str = OLD) -> World:
    one = World(HealthPicture, plan, Settings(), *facts)  # type: ignore[arg-type]
    runs(one, build)
    return one


def runs(one: World, *builds: str) -> None:
    """The replicas of sync, each with its build."""
    one.readings = {
        f"tel.svc-sync-{number}.heartbeat": Reading(
            ServiceBeat(service="sync", replica=str(number), build=build.split()[0], contracts=build.split()[1],
                        leader=False, position=1, log_end=1, handled=1, failed=0, loop_lag_s=0, up_s=1), 1.0)
        for number, build in enumerate(builds)
    }  # fmt: skip


def test_ten_of_a_consumer_go_in_a_minute_the_longest_due_first() -> None:
    one = world(*(recorded(n, due_s=60 - n) for n in range(25)))
    one.tick(61)
    assert [fact.letter for fact in one.of(DeadLetterRedriven)] == [f"sync-COMMANDS-{n}" for n in range(24, 14, -1)]
    one.tick(30, times=3)
    assert len(one.of(DeadLetterRedriven)) == 10
    one.tick(31)
    assert len(one.of(DeadLetterRedriven)) == 20


def test_what_recovers_makes_room_at_once() -> None:
    one = world(*(recorded(n) for n in range(12)))
    one.tick(61)
    one.add(DeadLetterRecovered(letter=one.of(DeadLetterRedriven)[0].letter))
    one.tick(1)
    assert len(one.of(DeadLetterRedriven)) == 11


@examples(st.sets(st.integers(0, 19), min_size=0, max_size=19))
def test_ten_poisoned_never_delay_ten_healthy(poisoned: set[int]) -> None:
    """Whichever of twenty fail again and again, each healthy one has gone within two rounds."""
    one = world(*(recorded(n) for n in range(20)))
    answered = 0
    for _ in range(3):
        one.tick(61)
        fresh = one.of(DeadLetterRedriven)[answered:]
        answered += len(fresh)
        for fact in fresh:
            number = int(fact.letter.rsplit("-", 1)[1])
            again = DeadLetterFailedAgain(
                letter=fact.letter, reason="r", attempt=fact.attempt, due_at=at(one.now + 60 * 2**fact.attempt)
            )
            one.add(again if number in poisoned else DeadLetterRecovered(letter=fact.letter))
    assert {fact.letter for fact in one.of(DeadLetterRecovered)} == {
        f"sync-COMMANDS-{n}" for n in range(20) if n not in poisoned
    }


def test_a_permanent_letter_goes_once_for_each_new_build() -> None:
    one = world(recorded(1, transient=False))
    one.tick(10_000)
    assert one.of(DeadLetterRedriven) == []
    runs(one, OLD, NEW)
    one.tick(10)
    assert one.of(DeadLetterRedriven) == [], "while a replica still runs the old build"
    runs(one, NEW)
    one.tick(10)
    first = one.of(DeadLetterRedriven)
    assert [fact.build for fact in first] == [NEW]
    assert NEW in first[0].reason
    one.add(DeadLetterFailedAgain(letter="sync-COMMANDS-1", reason="r", attempt=1, due_at=None))
    one.tick(10_000, times=3)
    assert len(one.of(DeadLetterRedriven)) == 1, "not again for the same build"
    runs(one, "3 ccc")
    one.tick(10)
    assert len(one.of(DeadLetterRedriven)) == 2


def test_an_expired_order_is_not_mended_by_a_build() -> None:
    one = world(recorded(1, transient=False, exception="Expired"))
    runs(one, NEW)
    one.tick(10)
    assert one.of(DeadLetterRedriven) == []


def test_an_abandoned_letter_raises_an_alarm_until_a_person_decides() -> None:
    one = world(recorded(1), DeadLetterAbandoned(letter="sync-COMMANDS-1", attempts=5))
    one.tick(1)
    alarms = {fact.alarm: fact for fact in one.of(AlarmRaised)}
    assert alarms["abandoned-sync"].severity == "critical"
    assert "--consumer sync" in alarms["abandoned-sync"].remedy
    one.add(DeadLetterDiscarded(letter="sync-COMMANDS-1", by="me", reason="x"))
    one.tick(1)
    assert "abandoned-sync" in {fact.alarm for fact in one.of(AlarmCleared)}


def test_a_redriven_letter_that_nobody_reports_on_fails_in_the_end() -> None:
    one = world(recorded(1))
    one.tick(61)
    one.tick(13 * 86_400)
    assert one.of(DeadLetterFailedAgain) == []
    one.tick(86_400)
    assert "nobody reported" in one.of(DeadLetterFailedAgain)[0].reason


def test_a_letter_that_is_not_pending_is_never_due() -> None:
    for state in ("redriven", "recovered", "abandoned", "discarded"):
        letter = DeadLetter(state=state, transient=True, due_at=at(0))  # type: ignore[arg-type]
        assert due("l", letter, at(0) + timedelta(days=1), set()) == []


def test_a_consumers_builds_are_those_of_its_service() -> None:
    known = {"sync": {OLD}, "sync-two": {NEW}}
    assert builds_behind("sync-reactions", known) == {OLD}
    assert builds_behind("sync-two-reactions", known) == {NEW}
    assert builds_behind("pipeline", known) == set()
