"""A task's life, fact by fact."""

from __future__ import annotations

from selfplay_orch.core.task import TASK, cancel, failed, finished, request, started
from selfplay_orch.settings import Settings
from sparring.contracts.parts import TaskSpec
from sparring.contracts.selfplay_orch import (
    CancelTask,
    ReportTaskFailed,
    ReportTaskFinished,
    ReportTaskStarted,
    RequestTask,
    TaskAbandoned,
    TaskAssigned,
    TaskCancelled,
    TaskFailed,
    TaskFinished,
    TaskOrphaned,
    TaskRequested,
    TaskStarted,
)
from sparring.testing import at, given

S = Settings()
SPEC = TaskSpec(kind="export", lane="hex", seed=1, argv=("run",), timeout_s=600, iteration="hex-1")
REQUESTED = TaskRequested(task="t", spec=SPEC, by="pipeline", max_attempts=2)


def assigned(attempt: int = 1, node: str = "n1") -> TaskAssigned:
    return TaskAssigned(task="t", attempt=attempt, node=node, boot="b1", seat_limit=2)


def begun(attempt: int = 1, node: str = "n1") -> TaskStarted:
    return TaskStarted(task="t", attempt=attempt, node=node)


def orphaned(attempt: int = 1) -> TaskOrphaned:
    return TaskOrphaned(task="t", attempt=attempt, node="n1", reason="the node is lost")


def done(attempt: int = 1, node: str = "n1", **evidence: int) -> ReportTaskFinished:
    return ReportTaskFinished(task="t", attempt=attempt, node=node, seconds=5, files=(), evidence=evidence)


def told(attempt: int = 1, node: str = "n1", superseded: bool = False) -> TaskFinished:
    return TaskFinished(task="t", attempt=attempt, node=node, kind="export", lane="hex", iteration="hex-1", seconds=5,
                        files=(), evidence={"games": 3}, superseded=superseded)  # fmt: skip


def failure(retry_s: float | None, attempt: int = 1, reason: str = "exit 1", now: float = 0) -> TaskFailed:
    return TaskFailed(task="t", attempt=attempt, node="n1", kind="export", lane="hex", reason=reason,
                      retry_at=None if retry_s is None else at(now + retry_s))  # fmt: skip


def test_a_request_mints_the_task_once() -> None:
    order = RequestTask(task="t", spec=SPEC, by="pipeline", max_attempts=2)
    given(TASK).when(request, order, settings=S).then(REQUESTED).asked_again_changes_nothing(request, order, settings=S)


def test_a_request_without_a_timeout_gets_its_kinds() -> None:
    bare = RequestTask(task="t", spec=SPEC.model_copy(update={"timeout_s": 0}), by="x")
    story = given(TASK).when(request, bare, settings=S)
    assert [fact.spec.timeout_s for fact in story.outcome if isinstance(fact, TaskRequested)] == [3600]


def test_a_request_is_for_as_long_as_was_said() -> None:
    order = RequestTask(task="t", spec=SPEC, by="pipeline", max_attempts=2, expires_s=30)
    expected = REQUESTED.model_copy(update={"expires_at": at(40)})
    given(TASK).when(request, order, at(10), settings=S).then(expected)


def test_only_the_assigned_node_and_attempt_can_start() -> None:
    story = given(TASK, REQUESTED, assigned())
    story.when(started, ReportTaskStarted(task="t", attempt=1, node="n2")).then_nothing()
    story.when(started, ReportTaskStarted(task="t", attempt=2, node="n1")).then_nothing()
    story.when(started, ReportTaskStarted(task="t", attempt=1, node="n1")).then(begun()).asked_again_changes_nothing(
        started, ReportTaskStarted(task="t", attempt=1, node="n1")
    )


def test_a_finish_with_evidence_ends_the_task_once() -> None:
    given(TASK, REQUESTED, assigned(), begun()).when(finished, done(games=3)).then(told()).asked_again_changes_nothing(
        finished, done(games=3)
    )


def test_a_completion_without_evidence_is_a_failure() -> None:
    given(TASK, REQUESTED, assigned(), begun()).when(finished, done(), settings=S).then(
        failure(1, reason="a completion without evidence")
    )


def test_a_late_result_of_an_orphan_is_recorded_as_superseded_once() -> None:
    story = given(TASK, REQUESTED, assigned(), begun(), orphaned(), assigned(2, "n2"))
    story.when(finished, done(1, games=3)).then(told(1, superseded=True)).asked_again_changes_nothing(
        finished, done(1, games=3)
    )
    story.when(finished, done(2, "n2", games=3)).then(told(2, "n2"))


def test_a_result_after_the_finish_of_another_attempt_changes_nothing() -> None:
    story = given(TASK, REQUESTED, assigned(), begun(), orphaned(), assigned(2, "n2"), told(2, "n2"))
    story.when(finished, done(1, games=3)).then_nothing()


def test_a_superseded_result_does_not_end_the_attempt_that_runs() -> None:
    story = given(TASK, REQUESTED, assigned(), begun(), orphaned(), assigned(2, "n2"), told(1, superseded=True))
    story.when(started, ReportTaskStarted(task="t", attempt=2, node="n2")).then(begun(2, "n2"))


def test_failures_are_tried_again_after_a_growing_delay_then_given_up() -> None:
    report = ReportTaskFailed(task="t", attempt=1, node="n1", reason="exit 1")
    story = given(TASK, REQUESTED, assigned(), begun()).when(failed, report, settings=S).then(failure(1))
    story.facts += [(0.0, assigned(2)), (0.0, begun(2))]
    second = report.model_copy(update={"attempt": 2})
    story.when(failed, second, at(9), settings=S).then(
        failure(None, 2),
        TaskAbandoned(task="t", kind="export", lane="hex", iteration="hex-1", reason="exit 1", attempts=2),
    ).asked_again_changes_nothing(failed, second, at(9), settings=S)


def test_delays_grow_from_one_to_five_to_thirty_seconds() -> None:
    many = REQUESTED.model_copy(update={"max_attempts": 9})
    story = given(TASK, many)
    for attempt, delay in enumerate((1, 5, 30, 30), start=1):
        story.facts += [(0.0, assigned(attempt)), (0.0, begun(attempt))]
        report = ReportTaskFailed(task="t", attempt=attempt, node="n1", reason="exit 1")
        story.when(failed, report, settings=S).then(failure(delay, attempt))


def test_an_attempt_counts_only_once_it_started() -> None:
    story = given(TASK, REQUESTED, assigned(1), orphaned(1), assigned(2), orphaned(2), assigned(3))
    report = ReportTaskFailed(task="t", attempt=3, node="n1", reason="no such program")
    story.when(failed, report, settings=S).then(failure(1, 3, "no such program"))


def test_a_task_that_never_gets_to_start_is_given_up_in_the_end() -> None:
    story = given(TASK, REQUESTED, assigned(20))
    report = ReportTaskFailed(task="t", attempt=20, node="n1", reason="no such program")
    story.when(failed, report, settings=S).then_types(TaskFailed, TaskAbandoned)


def test_a_permanent_failure_is_given_up_at_once() -> None:
    report = ReportTaskFailed(task="t", attempt=1, node="n1", reason="bad job", permanent=True)
    given(TASK, REQUESTED, assigned(), begun()).when(failed, report, settings=S).then_types(TaskFailed, TaskAbandoned)


def test_a_failure_report_of_an_older_attempt_changes_nothing() -> None:
    report = ReportTaskFailed(task="t", attempt=1, node="n1", reason="exit 1")
    given(TASK, REQUESTED, assigned(), orphaned(), assigned(2)).when(failed, report, settings=S).then_nothing()


def test_whatever_is_open_can_be_cancelled_once() -> None:
    order = CancelTask(task="t", reason="enough")
    for facts in ((REQUESTED,), (REQUESTED, assigned()), (REQUESTED, assigned(), begun())):
        given(TASK, *facts).when(cancel, order).then(
            TaskCancelled(task="t", reason="enough")
        ).asked_again_changes_nothing(cancel, order)
    given(TASK, REQUESTED, assigned(), told()).when(cancel, order).then_nothing()
