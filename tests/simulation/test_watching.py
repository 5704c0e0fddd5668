"""Each invariant of a run goes red when the rule is broken, and a failing schedule shrinks to what it needs."""

from __future__ import annotations

import pytest

import selfplay_orch.core.selfplay
from selfplay_orch.core.selfplay import Turns
from sparring.simulation import Cluster
from sparring.simulation.faults import Fault, Faults
from sparring.simulation.setup import quick
from sparring.simulation.trial import Verdict, _shrunk, chaotic, faults_of, trial


def names(cluster: Cluster) -> set[str]:
    assert cluster.watcher is not None
    return {one.partition(":")[0] for one in cluster.watcher.violations}


def test_a_planner_that_sleeps_leaves_seats_free_and_the_loop_standing() -> None:
    cluster = Cluster(quick(1, nodes=2))
    cluster.run(30)
    cluster.leads["selfplay-orch"] = set()
    cluster.run(380)
    assert {"a freed seat is filled while work is there", "the loop goes on"} <= names(cluster)


def test_a_lane_that_never_gets_its_turn_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Turns, "order", lambda self: sorted(self._lanes))
    cluster = Cluster(quick(1, nodes=2))
    cluster.run(450)
    assert "no lane is unserved longer than its bound" in names(cluster)


def test_a_milder_level_for_worse_input_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    flickering = lambda depth, limits, before: "none" if before != "none" else "soft" if depth else "none"  # noqa: E731
    monkeypatch.setattr("health.core.queues.next_level", flickering)
    cluster = Cluster(quick(1, nodes=2))
    cluster.run(50)
    cluster.leads["pipeline"] = set()
    cluster.run(700)
    assert "worse input is never a milder level" in names(cluster)


def test_what_nobody_ends_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that dies while nothing is ever orphaned leaves tasks past every deadline."""
    monkeypatch.setattr("selfplay_orch.core.plan.endings", lambda look: [])
    short = {"selfplay-orch": {"kinds": {"selfplay": {"timeout_s": 310.0}}}}
    cluster = Cluster(quick(1, nodes=2, settings=short))
    Faults(cluster, [Fault(1, "preempted", 60.0, 30.0, "n2")])
    cluster.run(700)
    assert "no entity is without a next deadline" in names(cluster)


def test_a_kind_that_is_never_placed_breaks_its_reserved_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("selfplay_orch.core.plan.place_requested", lambda look: [])
    cluster = Cluster(quick(1, nodes=2))
    cluster.run(600)
    assert "reserved shares are kept" in names(cluster)


def test_a_limit_that_is_passed_is_noticed_at_that_very_fact(monkeypatch: pytest.MonkeyPatch) -> None:
    """The invariants of the log are asked of every fact of a run, not at its end."""
    for module in ("admission", "placement"):
        monkeypatch.setattr(f"selfplay_orch.core.{module}.seat_no", lambda *_: None)
    cluster = Cluster(quick(1, nodes=2))
    assert cluster.watcher is not None
    while not cluster.watcher.violations:
        cluster.run(1)
    assert names(cluster) == {"LimitsAreKept"}
    assert cluster.timeline.now < 30


def test_a_schedule_shrinks_to_the_faults_that_it_needs() -> None:
    faults = tuple(Fault(number, "death", 10.0 * number, 5.0, "n1") for number in range(1, 9))
    tried: list[int] = []

    def attempt(kept: tuple[Fault, ...]) -> Verdict:
        tried.append(len(kept))
        broken = ("it broke",) if {3, 6} <= {one.number for one in kept} else ()
        return Verdict(17, kept, broken, 0, 0, 600.0)

    least = _shrunk(faults, attempt)
    assert [one.number for one in least.faults] == [3, 6]
    assert least.reproduce(len(faults)) == "spar simulate --chaos --seed 17 --minutes 10 --faults 3,6"
    assert len(tried) < 25


def test_a_trial_is_the_same_again() -> None:
    setup = chaotic(11)
    faults = faults_of(setup, 200)
    assert trial(setup, faults, 200) == trial(setup, faults, 200)


def test_an_error_in_a_core_is_a_violation_with_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(look: object) -> list[object]:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("selfplay_orch.core.plan.fill", breaks)
    found = trial(quick(1, nodes=1), [], 30)
    assert any("ZeroDivisionError" in one and "test_watching.py" in one for one in found.violations)
    assert selfplay_orch.core.selfplay.fill is not breaks
