"""What was ordered is remembered for its time, and remembering many costs no more than remembering few."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparring import binding
from sparring.binding import Repeats
from sparring.contracts.node_agent import ReleaseCustody
from sparring.decider import Send


def order(number: int, again_s: float = 300.0) -> Send:
    return Send(
        ReleaseCustody(node="n1", batch=f"b{number}", sha256="0" * 64), key=f"release-{number}", again_s=again_s
    )


@given(st.lists(st.tuples(st.integers(0, 5), st.floats(0, 20)), max_size=60))
def test_an_order_is_due_again_after_its_time_however_much_is_remembered(steps: list[tuple[int, float]]) -> None:
    few, all_of_it = Repeats(), dict[int, float]()
    few._most, now = 2, 0.0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(binding, "MOST_REMEMBERED", 2)
        for number, wait in steps:
            now += wait
            send = order(number, 10.0)
            assert few.due(send, now) == (now >= all_of_it.get(number, 0.0))
            few.sent(send, now)
            all_of_it[number] = now + 10.0


def test_remembering_grows_with_what_is_waited_for_and_looks_it_through_rarely(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred nodes release ten batches a second: 50,000 were looked through at every one of them."""
    looks = list[int]()

    class Counted(dict[object, float]):
        def items(self):  # type: ignore[no-untyped-def]
            looks.append(len(self))
            return super().items()

    monkeypatch.setattr(binding, "MOST_REMEMBERED", 100)
    repeats = Repeats()
    for number in range(3_000):
        repeats._until = repeats._until if isinstance(repeats._until, Counted) else Counted(repeats._until)
        repeats.sent(order(number), number * 0.1)
    assert sum(looks) < 3 * 3_000
    for number in range(3_000, 9_000):
        repeats._until = repeats._until if isinstance(repeats._until, Counted) else Counted(repeats._until)
        repeats.sent(order(number), 10_000 + number)
    assert len(repeats._until) < 1_000, "what is over is forgotten"
