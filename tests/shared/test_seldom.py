"""A lane that fails at every tick is one failure a minute: three hundred in five minutes would pause the whole cluster."""

from __future__ import annotations

from sparring import seldom
from sparring.seldom import Seldom


def test_the_same_again_is_news_once_a_minute_and_something_else_at_once() -> None:
    one = Seldom()
    assert [at for at in range(300) if one.news("lane a: KeyError", 1_000.0 + at)] == [0, 60, 120, 180, 240]
    assert one.news("lane b: KeyError", 1_299.0) and not one.news("lane b: KeyError", 1_300.0)


def test_what_was_never_said_again_is_forgotten() -> None:
    one = Seldom()
    for number in range(10 * seldom.MOST):
        assert one.news(f"text {number}", 100.0 * number)
    assert len(one._last) <= seldom.MOST + 1
