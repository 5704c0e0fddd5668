"""Work in the caller's own process: recorded as a task, never placed, never retried, never without an end."""

from __future__ import annotations

import pytest
from orch_world import World

from selfplay_orch.core.questions import can_schedule, can_spawn, denials, estimate
from sparring.contracts.parts import TaskSpec
from sparring.contracts.selfplay_orch import (
    CloseTask,
    OpenTask,
    TaskAbandoned,
    TaskAssigned,
    TaskFailed,
    TaskFinished,
    TaskRequested,
    TaskStarted,
)
from sparring.errors import BadInput, CannotAnswer

SPEC = TaskSpec(kind="analysis", lane="hex", seed=1, argv=(), timeout_s=100, outside=True)


def open_task() -> OpenTask:
    return OpenTask(task="own", spec=SPEC, by="me", node="outside-1")


def close_task(**more: object) -> CloseTask:
    values = {"task": "own", "spec": SPEC, "by": "me", "node": "outside-1", "seconds": 3, "evidence": {"rows": 1}}
    return CloseTask.model_validate(values | more)


def test_own_work_is_requested_assigned_and_started_in_one_decision_and_asked_twice_once() -> None:
    world = World().join().lane("hex")
    facts = world.order(open_task())
    assert [type(fact) for fact in facts] == [TaskRequested, TaskAssigned, TaskStarted]
    assert world.order(open_task()) == []


def test_own_work_takes_no_seat_and_is_placed_nowhere() -> None:
    world = World().join(seats=2).lane("hex")
    world.order(open_task())
    world.plan()
    assert len(world.running("selfplay")) == 2
    assert [fact.node for fact in world.facts(TaskAssigned) if fact.task == "own"] == ["outside-1"]
    world.after(90).plan()
    assert not [fact for fact in world.facts(TaskFailed) if fact.task == "own"], "no node beats for it, and none has to"


def test_own_work_whose_process_died_ends_at_its_timeout_and_is_not_tried_again() -> None:
    world = World().join().lane("hex", enabled=False)
    world.order(open_task())
    world.after(100 + world.settings.grace_s + 1).plan()
    (failed,) = world.facts(TaskFailed)
    assert failed.retry_at is None and "longer than 100 s" in failed.reason
    assert [fact.task for fact in world.facts(TaskAbandoned)] == ["own"]
    assert not world.picture.all.outside


def test_an_end_that_arrives_before_its_beginning_counts_and_the_beginning_changes_nothing() -> None:
    world = World().join().lane("hex")
    facts = world.order(close_task())
    assert [type(fact) for fact in facts] == [TaskRequested, TaskAssigned, TaskStarted, TaskFinished]
    assert world.order(open_task()) == [] and world.order(close_task()) == []


def test_own_work_that_failed_carries_the_reason_and_a_completion_carries_its_evidence() -> None:
    world = World().join().lane("hex")
    world.order(open_task())
    assert [type(fact) for fact in world.order(close_task(failure="ValueError: no"))] == [TaskFailed, TaskAbandoned]
    empty = World().join().lane("hex")
    empty.order(open_task())
    (failed, _) = empty.order(close_task(evidence={}))
    assert "evidence" in failed.reason  # type: ignore[attr-defined]


# ---- questions


def test_questions_answer_what_the_planner_would_do_and_change_nothing() -> None:
    world = World().join(seats=1).lane("hex", commands={"selfplay": ("p", "{job}"), "train": ("t", "{job}")})
    world.beat()
    assert can_schedule(world.context(), kind="train", lane="hex").node == "n1"
    assert can_spawn(world.context(), kind="selfplay", node="n1").allowed
    world.plan()
    world.beat(running=[(name, 1) for name in world.running()])
    answer = can_spawn(world.context(), kind="selfplay", node="n1")
    assert (answer.allowed, answer.reason, answer.actual, answer.limit) == (False, "capacity", 1, 1)
    told = {one.kind: one for one in denials(world.context(), node="n1")}
    assert told["train"].allowed and told["train"].lanes == ("hex",)
    assert (told["selfplay"].allowed, told["selfplay"].reason) == (False, "capacity")
    before = len(world.log)
    world.plan()
    assert len(world.log) == before


def test_a_question_without_the_readings_that_it_needs_is_refused_and_never_allowed() -> None:
    world = World().join().lane("hex")
    world.silent.add("n1")
    with pytest.raises(CannotAnswer, match="there is none"):
        can_spawn(world.context(), kind="selfplay", node="n1")
    world.beat().after(31)
    with pytest.raises(CannotAnswer, match="31 s old"):
        can_spawn(world.context(), kind="selfplay", node="n1")
    with pytest.raises(CannotAnswer, match="of each node that would do are unknown: there is no fresh one, "):
        can_schedule(world.context(), kind="selfplay", lane="hex")
    with pytest.raises(CannotAnswer, match="no node is healthy"):
        estimate(World().lane("hex").context(), kind="selfplay", lane="hex")


def test_a_question_about_what_does_not_exist_names_what_there_is() -> None:
    world = World().join().lane("hex")
    with pytest.raises(BadInput, match="n1"):
        can_spawn(world.context(), kind="selfplay", node="n7")
    with pytest.raises(BadInput, match="hex"):
        estimate(world.context(), kind="selfplay", lane="go")
    with pytest.raises(BadInput, match="offers selfplay"):
        estimate(world.context(), kind="distill", lane="hex")


def test_estimates_come_from_the_planners_own_table() -> None:
    world = World().join(seats=1).lane("hex")
    for _ in range(3):
        world.plan()
        (task,) = world.running("selfplay")
        world.start(task)
        world.after(2).finish(task, seconds=10.0)
    found = estimate(world.context(), kind="selfplay", lane="hex", node="n1")
    assert (found.measured, found.mean_s, found.p90_s) == (3, 12.0, 12.0)


def test_a_task_that_takes_longer_than_it_may_run_can_not_be_scheduled() -> None:
    world = World().join().lane("hex").beat()
    answer = can_schedule(world.context(), kind="selfplay", lane="hex", seconds=99_999)
    assert (answer.allowed, answer.reason, answer.limit) == (False, "longer than it may run", 1800)
