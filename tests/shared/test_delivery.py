"""The table of what becomes of a message, and how children are started again."""

from __future__ import annotations

import sys
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from sparring.delivery import ATTEMPTS, Ack, GiveUp, Retry, disposition
from sparring.errors import Expired, LogUnavailable, ReadModelBehind, Undecodable
from sparring.supervisor import ALARM_AFTER, Child, Supervisor, restart_delay_s


def test_success_is_acknowledged() -> None:
    assert disposition(None, 1) == Ack()


def test_permanent_errors_are_given_up_at_once() -> None:
    for error in (Undecodable("x"), Expired("x")):
        found = disposition(error, 1)
        assert isinstance(found, GiveUp)
        assert not found.transient


def test_other_errors_are_retried_with_growing_delay_and_at_last_given_up() -> None:
    delays = [disposition(LogUnavailable("x"), attempt) for attempt in range(1, ATTEMPTS)]
    assert [one.delay_s for one in delays if isinstance(one, Retry)] == [1, 5, 30, 120]
    last = disposition(LogUnavailable("x"), ATTEMPTS)
    assert isinstance(last, GiveUp)
    assert last.transient


def test_a_read_model_that_is_behind_is_waited_for_briefly() -> None:
    found = disposition(ReadModelBehind("x"), 1)
    assert isinstance(found, Retry)
    assert found.delay_s < 1


@given(st.integers(1, ATTEMPTS - 1), st.floats(-1, 1))
def test_jitter_moves_a_delay_by_ten_percent_at_most(attempt: int, jitter: float) -> None:
    plain, moved = disposition(ValueError("x"), attempt), disposition(ValueError("x"), attempt, jitter=jitter)
    assert isinstance(plain, Retry)
    assert isinstance(moved, Retry)
    assert abs(moved.delay_s - plain.delay_s) <= 0.1 * plain.delay_s + 1e-9


def test_a_child_comes_back_at_once_then_later_and_later() -> None:
    assert [restart_delay_s(n) for n in (1, 2, 3, 4, 20)] == [0, 5, 10, 20, 300]


def test_five_ends_within_an_hour_raise_an_alarm(tmp_path: Path) -> None:
    now, said = [0.0], list[str]()
    supervisor = Supervisor(said.append, clock=lambda: now[0])
    supervisor.add(Child("broken", [sys.executable, "-c", "import time; time.sleep(600)"], tmp_path / "log"))
    for _ in range(ALARM_AFTER):
        child = supervisor.children[0]
        assert child.process is not None
        child.process.kill()
        child.process.wait(30)
        supervisor.look()
        now[0] += 300
        supervisor.look()
    assert "broken ended 5 times" in supervisor.alarms["broken"]
    supervisor.stop()
