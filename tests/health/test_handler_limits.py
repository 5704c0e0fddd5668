"""How long a service's handlers may take follows how long they take: wider while they use it up, never below its own."""

from __future__ import annotations

import pytest
from health_world import Watched, service
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from health.core.beats import Heard
from health.core.handler_times import HandlerTimes
from health.core.threshold import WINDOW
from health.settings import Settings
from sparring.contracts.health import ThresholdMoved
from sparring.decider import Reading


class Handling(Watched):
    """`sync` handles; every other service is idle."""

    measured = within = 0
    limit_s, least_s = 30.0, 30.0
    up_s = 0.0

    def took(self, ended: int, well: int) -> None:
        """So many handlings more; the planner looks at them."""
        self.measured, self.within, self.up_s = self.measured + ended, self.within + well, self.up_s + 1
        self.beats()
        self.tick(6)

    def beats(self) -> None:
        self.hears()
        self.readings["tel.svc-sync-1.heartbeat"] = Reading(
            service("sync", handler_s=self.limit_s, handler_least_s=self.least_s, measured=self.measured,
                    within=self.within, up_s=self.up_s), 1.0)  # fmt: skip

    def moves(self) -> list[tuple[float, float]]:
        return [(one.before, one.value) for one in self.of(ThresholdMoved) if one.threshold == "handler-sync"]


def test_a_service_whose_handlers_use_up_their_time_gets_more_of_it_and_gives_it_back() -> None:
    one = Handling()
    one.took(0, 0)
    one.took(49, 0)
    assert one.moves() == []
    one.took(1, 0)
    assert one.moves() == [(30.0, 33.0)]
    fact = one.of(ThresholdMoved)[0]
    assert {term.name: term.value for term in fact.terms} == {"well within": 0.0, "observed": 50.0}
    # until the service says that it adopted the limit, nothing that it does counts
    one.took(100, 0)
    one.passes(60, 6)
    assert len(one.moves()) == 1
    one.limit_s = 33.0
    one.took(100, 100)
    assert one.moves() == [(30.0, 33.0)]
    one.took(100, 100)
    assert one.moves()[1:] == [(33.0, 31.35)]
    one.limit_s = 31.35
    one.took(0, 0)
    one.passes(60, 6)
    one.took(100, 100)
    assert one.moves()[2:] == [(31.35, 30.0)]
    one.limit_s = 30.0
    one.took(0, 0)
    one.passes(120, 6)
    one.took(100, 100)
    assert len(one.moves()) == 3


def test_a_limit_stays_below_two_minutes() -> None:
    one = Handling()
    one.took(0, 0)
    for _ in range(30):
        one.took(60, 0)
        one.passes(60, 6)
        one.limit_s = one.moves()[-1][1]
        one.took(0, 0)
    assert one.moves()[-1][1] == 120.0


def test_a_process_that_begins_anew_counts_from_nothing() -> None:
    one = Handling()
    one.took(1_000, 1_000)
    one.measured = one.within = 0
    one.up_s = -1
    one.took(60, 0)
    assert one.moves() == [(30.0, 33.0)]


def test_a_process_that_begins_anew_and_counts_past_its_old_numbers_is_noticed_too() -> None:
    times = HandlerTimes()
    for up_s, measured, within in ((5, 0, 0), (50, 20, 20), (10, 40, 30)):
        beat = service("sync", handler_s=30, measured=measured, within=within, up_s=up_s)
        times.note(Heard(replicas={("sync", "1"): (beat, 1.0)}))
    assert (len(times.outcomes["sync"]), sum(times.outcomes["sync"])) == (60, 50)


@pytest.mark.parametrize(
    ("settings", "moves"),
    [({"handler_least_s": 60.0}, [(50.0, 60.0)]), ({"handler_most_s": 40.0}, [(50.0, 40.0)]), ({}, [])],
)
def test_settings_that_changed_move_a_limit_that_is_in_force_into_their_bounds(
    settings: dict[str, float], moves: list[tuple[float, float]]
) -> None:
    before = ThresholdMoved(threshold="handler-sync", value=50.0, before=45.5, least=30, most=120, terms=())
    one = Handling(before, **settings)
    one.limit_s = 50.0
    one.took(0, 0)
    assert one.moves()[1:] == moves


@pytest.mark.parametrize("name", ["handler", "lost"])
def test_settings_whose_least_is_above_their_most_are_refused(name: str) -> None:
    with pytest.raises(ValidationError, match=f"{name}_most_s = 10.0 must not be below {name}_least_s = 20.0"):
        Settings.model_validate({f"{name}_most_s": 10.0, f"{name}_least_s": 20.0})


@given(st.lists(st.tuples(st.integers(0, 400), st.integers(0, 400)), max_size=12))
def test_a_window_never_holds_more_than_its_length_nor_better_than_was_measured(steps: list[tuple[int, int]]) -> None:
    times, measured, within = HandlerTimes(), 0, 0
    times.note(Heard(replicas={("sync", "1"): (service("sync", handler_s=30), 1.0)}))
    for ended, well in steps:
        measured, within = measured + ended, within + min(ended, well)
        beat = service("sync", handler_s=30, measured=measured, within=within)
        times.note(Heard(replicas={("sync", "1"): (beat, 1.0)}))
        outcomes = times.outcomes["sync"]
        assert len(outcomes) == min(WINDOW, measured)
        if ended >= WINDOW:
            assert sum(outcomes) <= WINDOW * min(ended, well) / ended
