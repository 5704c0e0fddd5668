"""Breakers open after failures in a row, always have a deadline, and close after one trial."""

from __future__ import annotations

from datetime import timedelta

from health_world import Watched, failed, finished, heart
from hypothesis import given as any_given
from hypothesis import strategies as st

from health.core.breaker import About, Breaker, Rules, Streak, evolve, next_facts
from sparring.contracts.health import BreakerClosed, BreakerHalfOpened, BreakerOpened, ClusterSwitched, HealthScored
from sparring.contracts.parts import Check
from sparring.contracts.sync import BatchStored, GamesRecorded, TransferFailed
from sparring.decider import Recorded
from sparring.testing import at

RULES = Rules(5, 60, 600)
KIND = About("kind", lane="hex", kind="selfplay")


def world() -> Watched:
    one = Watched()
    one.hears(heart())
    one.tick()
    return one


def test_five_failures_in_a_row_open_the_kinds_breaker_and_four_do_not() -> None:
    one = world()
    one.add(*(failed(f"t{n}") for n in range(4)))
    one.tick(1)
    assert one.of(BreakerOpened) == []
    one.add(failed("t5"))
    one.tick(1)
    assert [(fact.breaker, fact.failures, fact.times) for fact in one.of(BreakerOpened)] == [
        ("kind-hex-selfplay", 5, 1)
    ]


def test_a_success_between_failures_keeps_it_closed() -> None:
    one = world()
    one.add(*(failed(f"t{n}") for n in range(4)), finished("ok"), *(failed(f"u{n}") for n in range(4)))
    one.passes(2)
    assert one.of(BreakerOpened) == []


def test_a_node_is_blamed_only_when_more_than_one_kind_of_work_fails_there() -> None:
    one = world()
    one.add(*(failed(f"t{n}", kind=("selfplay", "export")[n % 2]) for n in range(6)))
    one.tick(1)
    assert [fact.breaker for fact in one.of(BreakerOpened)] == ["node-n1"]


def test_it_opens_for_60_s_doubling_to_600_within_10_percent_and_lets_one_trial_through() -> None:
    one = world()
    one.add(*(failed(f"t{n}") for n in range(5)))
    for n in range(6):
        while len(one.of(BreakerHalfOpened)) <= n:
            one.passes(20, 20)
        one.add(failed(f"trial{n}"))
        one.tick(1)
    opened = [recorded for recorded in one.facts if isinstance(recorded.fact, BreakerOpened)]
    lasting = [(recorded.fact.until - recorded.at).total_seconds() for recorded in opened]
    for seconds, nominal in zip(lasting, (60, 120, 240, 480, 600, 600), strict=False):
        assert 0.9 * nominal <= seconds <= 1.1 * nominal
    assert [fact.times for fact in one.of(BreakerOpened)] == list(range(1, len(lasting) + 1))


def test_a_trial_that_succeeds_closes_it_and_the_next_time_begins_at_60_s() -> None:
    one = world()
    one.add(*(failed(f"t{n}") for n in range(5)))
    one.passes(70, 2)
    assert len(one.of(BreakerHalfOpened)) == 1
    one.add(finished("trial"))
    one.tick(1)
    assert [fact.reason for fact in one.of(BreakerClosed)] == ["the trial succeeded"]
    one.add(*(failed(f"u{n}") for n in range(5)))
    one.tick(1)
    assert [fact.times for fact in one.of(BreakerOpened)] == [1, 1]


def test_rule_12_no_breaker_stays_open_without_anything_from_outside() -> None:
    one = world()
    one.add(*(failed(f"t{n}") for n in range(5)))
    one.passes(800, 5)
    kinds = [type(fact).__name__ for fact in one.of(BreakerOpened, BreakerHalfOpened, BreakerClosed)]
    assert kinds == ["BreakerOpened", "BreakerHalfOpened", "BreakerClosed"]


def test_failures_while_the_cluster_halts_or_the_node_leaves_open_nothing() -> None:
    one = world()
    one.add(ClusterSwitched(state="halted", before="running", revision=1, by="me", reason=""))
    one.add(*(failed(f"t{n}") for n in range(9)), *(failed(f"u{n}", node="gone") for n in range(9)))
    one.passes(3)
    assert one.of(BreakerOpened) == []


def test_five_failed_transfers_open_the_nodes_link() -> None:
    one = world()
    one.add(GamesRecorded(batch="b", lane="hex", task="t", attempt=1, node="n1", model="", sha256="a" * 64, bytes=1,
                          games=1, positions=1, check=Check(ok=True)))  # fmt: skip
    one.add(*(TransferFailed(batch="b", grant=n, reason="refused") for n in range(5)))
    one.tick(1)
    assert [fact.breaker for fact in one.of(BreakerOpened)] == ["link-n1"]
    one.passes(70, 2)
    one.add(BatchStored(batch="b", url="u", sha256="a" * 64, bytes=1))
    one.tick(1)
    assert len(one.of(BreakerClosed)) == 1


def test_open_breakers_lower_the_score() -> None:
    one = world()
    one.passes(12)
    one.add(*(failed(f"t{n}") for n in range(5)))
    one.passes(12)
    parts = {term.name: term.value for term in one.of(HealthScored)[-1].terms}
    assert parts["breakers"] == 0.5


STEPS = st.lists(st.sampled_from(("fails", "succeeds", "waits")), max_size=40)


@any_given(STEPS)
def test_every_state_but_closed_has_a_deadline_that_moves_it(steps: list[str]) -> None:
    breaker, streak, now = Breaker(), Streak(KIND), 0.0
    for step in steps:
        now += 30.0
        if step == "fails":
            streak = streak.failed("n", "r")
        elif step == "succeeds":
            streak = Streak(KIND, succeeded=True)
        for fact in next_facts(breaker, streak, RULES, "", at(now)):
            breaker, streak = evolve(breaker, Recorded(1, at(now), fact)), Streak(KIND)
        if breaker.state != "closed":
            assert breaker.until is not None
            assert at(now) < breaker.until <= at(now) + timedelta(seconds=660)
            assert next_facts(breaker, Streak(KIND), RULES, "", breaker.until)


@any_given(st.text(min_size=1, max_size=20), st.integers(1, 30))
def test_jitter_stays_within_10_percent_and_never_changes(id: str, times: int) -> None:
    nominal = min(600.0, 60.0 * 2 ** (times - 1))
    assert 0.9 * nominal <= RULES.open_s(id, times) <= 1.1 * nominal
    assert RULES.open_s(id, times) == RULES.open_s(id, times)
