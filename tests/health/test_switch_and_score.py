"""The score's parts, the pause that follows from them, and a person's word that stands above both."""

from __future__ import annotations

import pytest
from health_world import Watched, heart, service

from health.core.beats import Heard
from health.core.errors import ErrorWindow
from health.core.score import Parts
from health.core.switch import CLUSTER, switch
from health.settings import Settings
from sparring.contracts.health import (
    AlarmCleared,
    AlarmRaised,
    ClusterSwitched,
    HealthScored,
    RecoveryAttempted,
    RecoveryFailed,
    SwitchCluster,
    SwitchRefused,
)
from sparring.testing import at, given


def many(alive: int, dead: int = 0) -> tuple[object, ...]:
    return tuple((heart(f"n{n}", machine=f"m{n}"), 1.0 if n < alive else 500.0) for n in range(alive + dead))


def half_lost(**settings: object) -> Watched:
    """Six of ten nodes die one after the other."""
    one = Watched(**settings)
    one.hears(*many(10))
    one.tick()
    for alive in (9, 8, 7, 6, 5, 4):
        one.hears(*many(alive, 10 - alive))
        one.passes(4, 2)
    return one


def test_the_score_is_the_weighted_sum_of_its_parts() -> None:
    assert Parts(0.5, 0.8, 0.9, 1.0).value == pytest.approx(0.40 * 0.5 + 0.25 * 0.8 + 0.20 * 0.9 + 0.15)
    assert [Parts(nodes=n, errors=e).grade for n, e in ((1, 1), (0.4, 1), (0.1, 0.2), (0, 0))] == [
        "healthy", "degraded", "unhealthy", "unhealthy",
    ]  # fmt: skip
    assert Parts(0, 0, 0, 0).grade == "critical"


def test_it_is_not_better_than_degraded_while_a_service_is_silent() -> None:
    one = Watched()
    one.hears(heart(), silent=("sync",))
    one.passes(20)
    last = one.of(HealthScored)[-1]
    assert last.grade == "degraded" and last.value <= 0.79


def test_errors_count_for_five_minutes_and_not_since_the_start() -> None:
    one = Watched()
    one.hears(heart(), sync=(1_000, 500))
    one.passes(30)
    assert {t.name: t.value for t in one.of(HealthScored)[-1].terms}["errors"] == 1.0
    one.hears(heart(), sync=(1_002, 504))
    one.passes(30)
    assert {t.name: t.value for t in one.of(HealthScored)[-1].terms}["errors"] == pytest.approx(2 / 6, abs=1e-3)
    one.passes(400, 10)
    assert {t.name: t.value for t in one.of(HealthScored)[-1].terms}["errors"] == 1.0


def test_a_replica_that_began_anew_counts_from_zero() -> None:
    window = ErrorWindow()
    for n, (good, bad) in enumerate(((100, 50), (110, 50), (3, 1))):
        window.note(Heard(replicas={("sync", "1"): (service("sync", good, bad), 1.0)}), at(n))
    assert (window.of("sync").good, window.of("sync").failed) == (13, 1)


def test_recovery_counts_the_attempts_of_the_last_hour() -> None:
    one = Watched()
    one.hears(heart())
    one.add(RecoveryAttempted(recovery="node-x", node="x", action="drain node", attempt=1, limit=3, reason="", until=at(300)),
            RecoveryFailed(recovery="node-x", node="x", action="drain node", attempt=1, reason=""))  # fmt: skip
    one.passes(12)
    assert {t.name: t.value for t in one.of(HealthScored)[-1].terms}["recovery"] == 0.5
    one.tick(3_700)
    one.tick(11)
    assert {t.name: t.value for t in one.of(HealthScored)[-1].terms}["recovery"] == 1.0


def test_more_than_half_of_the_nodes_lost_pauses_the_cluster_by_itself_with_its_numbers() -> None:
    one = half_lost()
    paused = one.of(ClusterSwitched)
    assert [(fact.state, fact.by, fact.automatic) for fact in paused] == [("paused", "health", True)]
    assert "6 of 10 nodes are lost" in paused[0].reason and any(term.name == "lost nodes" for term in paused[0].terms)
    one.passes(2)
    assert any(fact.alarm == "paused" for fact in one.of(AlarmRaised))


def test_it_goes_on_when_the_score_held_for_two_minutes_and_not_before() -> None:
    one = half_lost()
    one.hears(*many(10))
    one.passes(110, 5)
    assert len(one.of(ClusterSwitched)) == 1
    one.passes(20, 5)
    assert [(fact.state, fact.automatic) for fact in one.of(ClusterSwitched)] == [("paused", True), ("running", True)]
    one.passes(2)
    assert any(fact.alarm == "paused" for fact in one.of(AlarmCleared))


def test_ten_errors_among_few_handlings_pause_and_among_many_do_not() -> None:
    for good, pauses in ((20, 1), (2_000, 0)):
        one = Watched()
        one.hears(heart(), sync=(0, 0))
        one.passes(3)
        one.hears(heart(), sync=(good, 10))
        one.passes(3)
        assert len(one.of(ClusterSwitched)) == pauses


def test_a_persons_pause_is_never_undone_automatically() -> None:
    one = Watched()
    one.hears(heart())
    one.add(ClusterSwitched(state="paused", before="running", revision=3, by="me", reason="upgrade"))
    one.passes(600, 20)
    assert len(one.of(ClusterSwitched)) == 1


def test_whoever_resumes_against_health_overrides_it_under_a_name_until_it_expires() -> None:
    automatic = ClusterSwitched(state="paused", before="running", revision=3, by="health", reason="x", automatic=True)
    story = given(CLUSTER, automatic).when(
        switch, SwitchCluster(state="running", revision=4, by="ann"), at(10), settings=Settings()
    )
    story.then(
        ClusterSwitched(state="running", before="paused", revision=4, by="ann", reason="", override_until=at(3_610))
    )
    one = half_lost()
    one.add(ClusterSwitched(state="running", before="paused", revision=4, by="ann", reason="",
                            override_until=at(one.now + 300)))  # fmt: skip
    one.passes(290, 10)
    assert len(one.of(ClusterSwitched)) == 2
    one.passes(20, 5)
    assert [fact.state for fact in one.of(ClusterSwitched)] == ["paused", "running", "paused"]


def test_a_person_takes_over_an_automatic_pause_and_then_only_a_person_ends_it() -> None:
    one = half_lost()
    revision = one.of(ClusterSwitched)[0].revision
    decided = given(CLUSTER, *one.of(ClusterSwitched)).when(
        switch, SwitchCluster(state="paused", revision=revision + 1, by="ann"), settings=Settings()
    )
    one.add(*decided.outcome)
    one.hears(*many(10))
    one.passes(300, 10)
    assert [(fact.state, fact.by) for fact in one.of(ClusterSwitched)] == [("paused", "health"), ("paused", "ann")]


def test_an_automatic_switch_leaves_the_revision_to_people() -> None:
    story = given(CLUSTER, ClusterSwitched(state="running", before="paused", revision=7, by="ann", reason=""),
                  ClusterSwitched(state="paused", before="running", revision=7, by="health", reason="x", automatic=True))  # fmt: skip
    story.when(switch, SwitchCluster(state="running", revision=6, by="bob"), settings=Settings()).then_types(
        SwitchRefused
    )


def test_by_hand_means_that_health_switches_nothing() -> None:
    assert half_lost(automatic=False).of(ClusterSwitched) == []


def test_nodes_that_went_long_ago_pause_nothing() -> None:
    one = Watched()
    one.hears(*many(1))
    one.tick()
    for n in range(5):
        one.hears(heart("n0", machine="m0"), heart(f"spot{n}", machine=f"s{n}"))
        one.passes(5)
        one.hears(heart("n0", machine="m0"), (heart(f"spot{n}", machine=f"s{n}"), 500.0))
        one.passes(4_000, 200)
    assert one.of(ClusterSwitched) == []
