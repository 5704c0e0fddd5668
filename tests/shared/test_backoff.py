"""Whatever fails for weeks is still tried at its longest pause: in every place that doubles."""

from __future__ import annotations

import pytest

from health.core.breaker import JITTER, Rules
from sparring.backoff import doubled_s
from sparring.supervisor import restart_delay_s


@pytest.mark.parametrize("times", [1_100, 10**6])
def test_a_pause_ends_at_its_most_however_often_it_failed(times: int) -> None:
    assert doubled_s(1.0, times, 60.0) == 60.0
    assert restart_delay_s(times) == 300.0
    assert Rules(5, 60.0, 600.0).open_s("node-n1", times) == pytest.approx(600.0, rel=JITTER)


def test_a_pause_doubles_from_its_first() -> None:
    assert [doubled_s(5.0, times, 60.0) for times in range(6)] == [5, 10, 20, 40, 60, 60]
