"""The life of a task: attempts count once started, evidence is asked for, late results lose their authority."""

from __future__ import annotations

import pytest

from selfplay_orch.core.task import TASK, cancel, failed, finished, request, started
from selfplay_orch.settings import Settings
from sparring.contracts.base import Fact
from sparring.contracts.parts import TaskSpec
from sparring.contracts.selfplay_orch import (
    CancelTask,
    ReportTaskFailed,
    ReportTaskFinished,
    ReportTaskStarted,
    RequestTask,
    TaskAbandoned,
    TaskAssigned,
    TaskFailed,
    TaskFinished,
    TaskOrphaned,
    TaskRequested,
    TaskStarted,
)
from sparring.testing import at, given

SPEC = TaskSpec(kind="train", lane="hex", seed=1, argv=("x",), timeout_s=100)
REQUESTED = TaskRequested(task="t", spec=SPEC, by="pipeline", max_attempts=2)
ASSIGNED = TaskAssigned(task="t", attempt=1, node="n1", boot="b1", seat_limit=1)
STARTED = TaskStarted(task="t", attempt=1, node="n1")


def report(attempt: int = 1, **more: object) -> ReportTaskFinished:
    values: dict[str, object] = {
        "task": "t",
        "attempt": attempt,
        "node": "n1",
        "seconds": 1,
        "files": (),
        "evidence": {"a": 1},
    }
    return ReportTaskFinished.model_validate(values | more)


def failure(attempt: int = 1) -> ReportTaskFailed:
    return ReportTaskFailed(task="t", attempt=attempt, node="n1", reason="x")


def second(fact: Fact) -> Fact:
    return fact.model_copy(update={"attempt": 2})


def test_a_task_is_requested_once() -> None:
    order = RequestTask(task="t", spec=SPEC, by="pipeline")
    given(TASK).when(request, order).then_types(TaskRequested).asked_again_changes_nothing(request, order)


def test_a_completion_without_evidence_is_a_failed_attempt() -> None:
    given(TASK, REQUESTED, ASSIGNED, STARTED).when(finished, report(evidence={}), settings=Settings()).then_types(
        TaskFailed
    )


def test_a_late_result_is_superseded_and_its_authority_is_gone() -> None:
    lost = TaskOrphaned(task="t", attempt=1, node="n1", reason="lost")
    story = given(TASK, REQUESTED, ASSIGNED, STARTED, lost).when(finished, report())
    assert isinstance(story.outcome[0], TaskFinished)
    assert story.outcome[0].superseded
    story.then_types(TaskFinished).asked_again_changes_nothing(finished, report())


def test_an_attempt_counts_only_once_it_started() -> None:
    never_started = TaskFailed(task="t", attempt=1, node="n1", kind="train", lane="hex", reason="x", retry_at=at(1))
    story = given(TASK, REQUESTED, ASSIGNED, never_started, second(ASSIGNED), second(STARTED))
    story.when(failed, failure(2), settings=Settings()).then_types(TaskFailed)


def test_attempts_that_started_are_used_up() -> None:
    before = TaskFailed(task="t", attempt=1, node="n1", kind="train", lane="hex", reason="x", retry_at=at(1))
    story = given(TASK, REQUESTED, ASSIGNED, STARTED, before, second(ASSIGNED), second(STARTED))
    story.when(failed, failure(2), settings=Settings()).then_types(TaskFailed, TaskAbandoned)


def test_reports_of_another_attempt_change_nothing() -> None:
    story = given(TASK, REQUESTED, ASSIGNED)
    story.when(started, ReportTaskStarted(task="t", attempt=2, node="n1")).then_nothing()
    story.when(failed, failure(2)).then_nothing()
    story.when(finished, report(attempt=5)).then_nothing()


def test_a_finished_task_is_not_cancelled() -> None:
    done = given(TASK, REQUESTED, ASSIGNED, STARTED).when(finished, report()).then_types(TaskFinished)
    done.when(cancel, CancelTask(task="t", reason="x")).then_nothing()


def test_a_lease_must_be_shorter_than_its_timeout_when_settings_load() -> None:
    with pytest.raises(ValueError, match="lease_s"):
        Settings.model_validate({"kinds": {"transfer": {"timeout_s": 20, "expected_s": 10}}})
