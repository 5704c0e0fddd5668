"""One controller per node: seats follow the load, inside bounds, slowly, and a new planner changes nothing by itself."""

from __future__ import annotations

import pytest
from health_world import Watched, heart
from hypothesis import example
from hypothesis import given as any_given
from hypothesis import strategies as st

from health.core.capacity import Controller
from health.core.seats import class_seats
from sparring.contracts.health import CapacityRetargeted
from sparring.contracts.readings import Gpu, Heartbeat, RunningTask


def busy(seats: int, load: float) -> Heartbeat:
    tasks = tuple(RunningTask(task=f"t{n}", attempt=1, kind="selfplay", lane="hex", for_s=1) for n in range(seats))
    return heart(load=load, running=tasks)


def cards(*names: str) -> tuple[Gpu, ...]:
    return tuple(
        Gpu(name=name, utilisation=0, memory_used_bytes=0, memory_total_bytes=1, temperature_c=30) for name in names
    )


def with_cards(*names: str, memory: int = 2**40) -> Heartbeat:
    one = heart()
    found = one.resources.model_copy(update={"gpus": cards(*names), "memory_total_bytes": memory})
    return one.model_copy(update={"resources": found})


def test_seats_follow_the_nodes_class() -> None:
    named = {"NVIDIA H100 80GB HBM3": 24, "NVIDIA A100-SXM4-40GB": 24, "NVIDIA GeForce RTX 4090": 12,
             "NVIDIA GeForce RTX 3090": 10, "unheard of": 6}  # fmt: skip
    assert {name: class_seats(with_cards(name)) for name in named} == named
    assert class_seats(with_cards("NVIDIA H100", "NVIDIA H100")) == 48


def test_memory_limits_seats_to_one_for_2_gb_and_never_below_one() -> None:
    assert class_seats(with_cards("NVIDIA H100", memory=16 * 2**30)) == 8
    assert class_seats(with_cards("NVIDIA H100", memory=2**20)) == 1


def test_cores_are_worth_half_a_seat_and_less_when_there_are_many() -> None:
    def of(cores: float) -> int:
        one = heart()
        more = {"cores": cores, "memory_total_bytes": 2**44}
        return class_seats(one.model_copy(update={"resources": one.resources.model_copy(update=more)}))

    assert (of(1), of(8), of(32), of(128)) == (1, 4, 12, 38)


def test_a_loaded_node_gives_up_seats_step_by_step() -> None:
    one = Watched()
    one.hears(busy(4, 1.0))
    one.passes(1_000, 5)
    moves = one.of(CapacityRetargeted)
    assert [fact.seats for fact in moves] == sorted((fact.seats for fact in moves), reverse=True) and moves[
        -1
    ].seats < 4
    assert {"load", "output", "integral", "age s"} <= {term.name for term in moves[0].terms}


def test_an_idle_machine_gets_more_seats_only_while_all_of_them_are_taken() -> None:
    idle, used = Watched(), Watched()
    idle.hears(busy(1, 0.1))
    used.hears(busy(40, 0.1))
    idle.passes(1_000, 5)
    used.passes(1_000, 5)
    assert idle.of(CapacityRetargeted) == [] and used.of(CapacityRetargeted)[-1].seats == 8


def test_a_load_inside_the_band_moves_nothing() -> None:
    one = Watched()
    one.hears(busy(4, 0.7))
    one.passes(600, 5)
    assert one.of(CapacityRetargeted) == []


def test_the_operators_own_limit_is_never_passed() -> None:
    one = Watched()
    one.hears(busy(40, 0.1).model_copy(update={"seats": 3}))
    one.passes(1_000, 5)
    assert all(fact.seats <= 3 for fact in one.of(CapacityRetargeted))


def test_a_planner_that_takes_over_begins_at_the_present_seats_and_moves_nothing_for_a_step() -> None:
    one = Watched()
    one.hears(busy(4, 1.0))
    one.passes(100, 5)
    before = len(one.of(CapacityRetargeted))
    for _ in range(10):
        one.picture, one._taken = type(one.picture)(), 0
        one.passes(20, 5)
    assert len(one.of(CapacityRetargeted)) == before


def test_a_rising_load_counts_as_what_it_will_be_in_two_minutes() -> None:
    rising, flat = Controller(8.0, last_load=0.4), Controller(8.0, last_load=0.5)
    assert rising.step(0.5, 1, 16).ahead == pytest.approx(0.9) and flat.step(0.5, 1, 16).ahead == 0.5
    assert rising.step(0.5, 1, 16).output < flat.step(0.5, 1, 16).output


@any_given(st.integers(1, 200))
def test_after_any_time_at_its_limit_the_controller_turns_at_once(steps: int) -> None:
    one = Controller(8.0)
    for _ in range(steps):
        one = one.step(0.0, 1, 8)
    # without anti-windup the integral of the idle time would hold it at the limit for as long
    assert one.step(1.0, 1, 8).output < one.output


STEPS = 120
# loads, and for how many steps each
STRETCHES = st.lists(st.tuples(st.floats(0, 1), st.integers(1, 60)), max_size=5)


def after(most: int, *stretches: tuple[float, int]) -> Controller:
    one = Controller(8.0)
    for load, steps in stretches:
        for _ in range(steps):
            one = one.step(load, 1, most)
    return one


@any_given(STRETCHES, st.floats(0, 0.5), st.integers(8, 64))
@example([(1.0, 60)], 0.3, 16)
def test_a_node_that_is_idle_long_enough_leaves_the_least_seats_whatever_came_before(
    history: list[tuple[float, int]], load: float, most: int
) -> None:
    """The integral stood still while the wanted seats lay below the least: a node stayed at one seat for ever."""
    assert after(most, *history, (load, STEPS)).seats(1, load, 1, most) > 1


@any_given(STRETCHES, st.floats(0.9, 1), st.integers(8, 64))
@example([(0.3, 60)], 0.9, 16)
def test_a_node_that_is_overloaded_long_enough_leaves_the_most_seats_whatever_came_before(
    history: list[tuple[float, int]], load: float, most: int
) -> None:
    assert after(most, *history, (load, STEPS)).seats(most, load, 1, most) < most


def test_a_node_that_starts_again_begins_with_a_controller_of_its_own() -> None:
    one = Watched()
    one.hears(busy(4, 1.0))
    one.passes(1_000, 5)
    before, at = one.picture.controllers["n1"]
    one.hears(busy(4, 0.7).model_copy(update={"boot": "b2"}))
    one.passes(10, 5)
    after, again = one.picture.controllers["n1"]
    assert (after.output, after.integral) == (4.0, 0.0) and before.integral < 0 and again > at
