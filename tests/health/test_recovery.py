"""A few attempts, then a person, then quiet: and what was tried is said under its own name."""

from __future__ import annotations

from health_world import Watched, failed, heart

from health.core.recovery import RECOVERY, Budget, Recovery, Trouble, next_step
from sparring.contracts.health import (
    AlarmRaised,
    BreakerOpened,
    Escalated,
    NodeDraining,
    NodeLost,
    NodeRetired,
    RecoveryAttempted,
    RecoveryFailed,
    RecoverySucceeded,
)
from sparring.contracts.node_agent import StopTask
from sparring.contracts.readings import RunningTask
from sparring.contracts.selfplay_orch import CancelTask
from sparring.testing import at, given


def running(done: float) -> RunningTask:
    return RunningTask(task="t", attempt=2, kind="train", lane="hex", for_s=10, done=done)


def standing_still(settings: dict[str, float] | None = None) -> Watched:
    one = Watched(standstill_s=100, **(settings or {}))
    one.hears(heart(running=(running(0.5),)))
    one.passes(120, 5)
    return one


def test_a_program_that_stands_still_is_stopped_first_and_cancelled_second_then_a_person_is_asked() -> None:
    one = standing_still()
    assert [(o.task, o.attempt) for o in one.orders(StopTask)] == [("t", 2)]
    one.passes(310, 5)
    assert [o.task for o in one.orders(CancelTask)] == ["t"]
    one.passes(310, 5)
    assert [fact.action for fact in one.of(RecoveryAttempted)] == ["restart task", "kill task"]
    assert len(one.of(RecoveryFailed)) == 2 and [fact.attempts for fact in one.of(Escalated)] == [2]
    assert any(fact.alarm.startswith("escalated") for fact in one.of(AlarmRaised))


def test_after_an_escalation_it_is_quiet_for_an_hour() -> None:
    one = standing_still()
    one.passes(700, 10)
    before = len(one.of(RecoveryAttempted, RecoveryFailed, Escalated))
    one.passes(2_800, 50)
    assert len(one.of(RecoveryAttempted, RecoveryFailed, Escalated)) == before


def test_a_program_that_moves_on_is_left_alone() -> None:
    one = Watched(standstill_s=100)
    for n in range(20):
        one.hears(heart(running=(running(n / 20),)))
        one.passes(30, 10)
    assert one.of(RecoveryAttempted) == []


def test_a_recovery_that_helped_says_so() -> None:
    one = standing_still()
    one.hears(heart())
    one.passes(10)
    assert len(one.of(RecoverySucceeded)) == 1


def broken_node(others: int = 2) -> Watched:
    one = Watched()
    one.hears(*(heart(f"n{n}", machine=f"m{n}") for n in range(1, 2 + others)))
    one.tick()
    one.add(*(failed(f"t{n}", kind=("selfplay", "export")[n % 2], lane=f"l{n}") for n in range(6)))
    one.passes(70, 5)
    one.add(failed("trial"))
    one.passes(10, 5)
    assert [fact.times for fact in one.of(BreakerOpened) if fact.scope == "node"] == [1, 2]
    return one


def test_a_node_whose_trial_failed_is_drained_so_that_its_agent_starts_anew() -> None:
    one = broken_node()
    assert [(fact.action, fact.node) for fact in one.of(RecoveryAttempted)] == [("drain node", "n1")]
    assert [(fact.node, fact.by) for fact in one.of(NodeDraining)] == [("n1", "health")]
    one.hears(heart(boot="b2"), heart("n2", machine="m2"), heart("n3", machine="m3"))
    one.passes(12, 3)
    assert len(one.of(RecoverySucceeded)) == 1


def test_a_node_that_stays_broken_is_retired_by_the_third_attempt_and_its_work_is_lost_there() -> None:
    one = broken_node()
    for n in range(40):
        one.passes(30, 10)
        if n % 12 == 11:
            one.add(failed(f"again{n}"))
    assert [fact.action for fact in one.of(RecoveryAttempted)] == ["drain node", "drain node", "retire node"]
    assert len(one.of(NodeRetired)) == 1 and [fact.reason for fact in one.of(NodeLost)] == ["retired"]


def test_the_last_healthy_node_is_never_taken_out() -> None:
    one = broken_node(others=0)
    one.passes(60, 10)
    assert one.of(NodeDraining, NodeRetired) == []


def test_no_attempt_is_made_within_the_cool_down_of_the_last_one() -> None:
    trouble = Trouble("n1", "broken", ("drain node",) * 2 + ("retire node",))
    budget = Budget(300, 3_600)
    fact = next_step(Recovery(), trouble, budget, at(0))[0]
    story = given(RECOVERY, fact)
    state = story.decider.evolve(Recovery(), __import__("sparring.testing", fromlist=["recorded"]).recorded(fact)[0])
    assert next_step(state, trouble, budget, at(299)) == []
    assert isinstance(next_step(state, trouble, budget, at(300))[0], RecoveryFailed)
