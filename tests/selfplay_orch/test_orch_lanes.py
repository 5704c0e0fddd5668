"""What each lane gets, whose turn it is, and how long tasks are."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise

import pytest
from hypothesis import given as any_given
from hypothesis import strategies as st
from orch_world import World, lane_spec, opened

from selfplay_orch.core.cluster import Lane
from selfplay_orch.core.durations import Durations
from selfplay_orch.core.limits import BOOST, Boost, boost
from selfplay_orch.core.look import Look
from selfplay_orch.core.selfplay import Turns
from selfplay_orch.core.shares import deficit, momentum, quota, shares
from sparring.contracts.lanes import GateRules
from sparring.contracts.lifecycle import (
    CurriculumRebalanced,
    GateDecided,
    ModelPromoted,
    ModelRejected,
    ModelRolledBack,
    Statistics,
)
from sparring.contracts.parts import Artifact, Check
from sparring.contracts.pipeline import LanePaused, LaneRegistered, LaneResumed
from sparring.contracts.selfplay_orch import (
    BoostLane,
    BoostRefused,
    LaneBoosted,
    LaneSharesPlanned,
    TaskCancelled,
    TaskRequested,
)
from sparring.contracts.sync import BatchAdmitted
from sparring.testing import at, given

SHA = "a" * 64


def lane(name: str = "hex", **more: object) -> Lane:
    values = {"spec": lane_spec(name), "iteration": f"{name}-1", "registered_at": at(0)} | more
    return Lane(**values)  # type: ignore[arg-type]


def admitted(lane: str, games: int, positions: int) -> BatchAdmitted:
    return BatchAdmitted(batch=f"{lane}-{games}", lane=lane, games=games, positions=positions, model="", sha256=SHA,
                         url="", check=Check(ok=True))  # fmt: skip


def score(one: Lane, seconds: float = 0) -> dict[str, float]:
    return {term.name: term.value for term in shares({"hex": one}, at(seconds))[0].terms}


# ---- the score


def test_every_term_follows_the_formula() -> None:
    one = lane(
        iterations=3, training=True, verdicts=(True, False, True, True), weight=1.25, quality=0.5, games=50,
        positions=2_500, last_games_at=at(0), elo_gains=((at(0) - timedelta(hours=11), 30.0), (at(0), 20.0)),
    )  # fmt: skip
    terms = score(one, 3600)
    assert terms["staleness"] == pytest.approx(0.30 / 4)
    assert terms["data deficit"] == pytest.approx(0.25 * 0.75)
    assert terms["Elo velocity"] == pytest.approx(0.20)
    assert terms["improvement"] == pytest.approx(0.15 * 0.75)
    assert terms["training"] == pytest.approx(0.10)
    assert terms["exploration"] == pytest.approx(0.05)
    assert terms["curriculum"] == pytest.approx(0.05)
    assert terms["quality penalty"] == pytest.approx(-0.10)
    assert terms["momentum"] == 1.5
    total = sum(terms[name] for name in ("staleness", "data deficit", "Elo velocity", "improvement", "training",
                                         "exploration", "curriculum", "quality penalty"))  # fmt: skip
    assert shares({"hex": one}, at(3600))[0].score == pytest.approx(total * 1.5, abs=1e-5)


def test_the_deficit_is_of_games_or_of_positions_whichever_lacks_more() -> None:
    assert deficit(lane(games=1000, positions=5_000)) == pytest.approx(0.5)
    assert deficit(lane(games=10, positions=50_000)) == pytest.approx(0.9)
    assert deficit(lane(games=150, positions=20_000, games_before=100, positions_before=0)) == pytest.approx(0.5)
    assert deficit(lane(games=200, positions=20_000)) == 0.0


@pytest.mark.parametrize(
    ("verdicts", "mood"),
    [
        ((True,), "stable"),
        ((False, False, True, True), "accelerating"),
        ((True, True, True, True), "improving"),
        ((False, False, False, False), "plateau"),
        ((True, True, False, False), "regressing"),
    ],
)
def test_momentum_is_read_from_the_last_verdicts(verdicts: tuple[bool, ...], mood: str) -> None:
    assert momentum(lane(verdicts=verdicts)) == mood


def test_a_boost_counts_until_it_expires() -> None:
    boosted = lane(boost=Boost(3.0, at(100), 1))
    assert score(boosted, 99)["boost"] == 3.0
    assert score(boosted, 100)["boost"] == 1.0


def test_a_boost_older_than_the_newest_is_refused() -> None:
    def order(revision: int, factor: float = 2.0) -> BoostLane:
        return BoostLane(lane="hex", factor=factor, for_s=60, revision=revision, by="me")

    told = LaneBoosted(lane="hex", factor=2.0, until=at(60), revision=2, by="me")
    story = given(BOOST).when(boost, order(2)).then(told).asked_again_changes_nothing(boost, order(2))
    story.when(boost, order(1, 3.0)).then(BoostRefused(lane="hex", revision=1, newest=2))


@any_given(st.lists(st.tuples(st.integers(0, 500), st.integers(0, 50_000), st.booleans()), min_size=1, max_size=12))
def test_shares_of_those_that_want_add_up_to_one_and_others_get_nothing(found: list[tuple[int, int, bool]]) -> None:
    lanes = {
        f"l{n}": lane(f"l{n}", games=games, positions=positions, paused=paused)
        for n, (games, positions, paused) in enumerate(found)
    }
    split = {one.lane: one.share for one in shares(lanes, at(60))}
    wanting = [name for name in lanes if not lanes[name].paused]
    assert sum(split.values()) == pytest.approx(1.0 if wanting else 0.0, abs=0.001)
    assert all(split[name] == 0 for name in lanes if lanes[name].paused)
    assert all(one <= max(quota(len(wanting)), 1 / max(1, len(wanting))) + 1e-3 for one in split.values())


# ---- the plan as a fact


def test_shares_are_planned_when_one_moves_by_more_than_a_point_at_most_every_ten_seconds() -> None:
    world = World().lane("a").lane("b")
    world.plan()
    assert len(world.facts(LaneSharesPlanned)) == 1
    world.after(5).lane("c").plan()
    assert len(world.facts(LaneSharesPlanned)) == 1
    world.after(5).plan()
    assert len(world.facts(LaneSharesPlanned)) == 2
    world.after(20).plan()
    assert len(world.facts(LaneSharesPlanned)) == 2, "nothing moved"


def test_a_curriculum_that_was_rebalanced_moves_the_shares_and_names_every_term() -> None:
    world = World()
    for name in "abcde":
        world.lane(name).tell(admitted(name, 500, 50_000))
    world.plan()
    before = world.facts(LaneSharesPlanned)[-1]
    world.after(11).tell(CurriculumRebalanced(lane="a", weight=2.0, terms=()))
    world.plan()
    after = world.facts(LaneSharesPlanned)[-1]
    share = {one.lane: one.share for one in after.shares}
    assert share["a"] > {one.lane: one.share for one in before.shares}["a"] + 0.01
    assert after.read_to > before.read_to


# ---- whose turn it is


def placed_in_turn(weights: dict[str, float], rounds: int) -> list[str]:
    world = World()
    for name in weights:
        world.lane(name).tell(admitted(name, 500, 50_000))
    world.picture.all.plan.shares.update(weights)
    look = Look(world.context())
    look.seats = 1
    turns = Turns(look, dict(world.picture.all.lanes))
    order = []
    for _ in range(rounds):
        chosen = turns.order()[0]
        turns.served(chosen)
        order.append(chosen)
    return order


@any_given(st.lists(st.integers(1, 20), min_size=2, max_size=8))
def test_a_lane_never_waits_for_longer_than_its_share_allows(parts: list[int]) -> None:
    weights = {f"l{n}": part / sum(parts) for n, part in enumerate(parts)}
    order = placed_in_turn(weights, 600)
    for name, share in weights.items():
        share = max(0.01, share)
        turns = [-1, *(n for n, one in enumerate(order) if one == name), 600]
        gaps = [after - before for before, after in pairwise(turns)]
        assert max(gaps) <= 1 / share + len(weights) + 1
        assert order.count(name) == pytest.approx(600 * share, rel=0.1, abs=len(weights))


def test_one_seat_serves_all_lanes_in_turn() -> None:
    world = World().join(seats=1)
    for name in "abc":
        world.lane(name).tell(admitted(name, 500, 50_000))
    for _ in range(12):
        world.plan()
        name = world.running()[0]
        world.after(30).start(name).finish(name)
    lanes = [fact.spec.lane for fact in world.facts(TaskRequested)]
    assert {one: lanes[:12].count(one) for one in "abc"} == {"a": 4, "b": 4, "c": 4}


def test_lanes_with_few_games_go_first_but_not_beyond_their_quota() -> None:
    world = World().join(seats=8)
    world.lane("old").tell(admitted("old", 500, 50_000))
    world.lane("new")
    world.plan()
    assert [fact.spec.lane for fact in world.facts(TaskRequested)][:4] == ["new"] * 4
    assert len(world.running(lane="old")) == 4


def test_a_lane_whose_games_are_held_back_does_not_keep_the_only_seat() -> None:
    world = World().join(seats=1).lane("stuck")
    world.lane("other").tell(admitted("other", 500, 50_000))
    for _ in range(8):
        world.plan()
        name = world.running()[0]
        world.after(30).start(name).finish(name, games=60)
    lanes = [fact.spec.lane for fact in world.facts(TaskRequested)]
    assert lanes.count("other") >= 3


def test_a_lane_alone_gets_all_seats_though_it_is_above_its_quota() -> None:
    world = World().join(seats=8).lane("a").lane("b").lane("c").lane("d").lane("e")
    for name in "bcde":
        world.tell(LanePaused(lane=name, revision=1, by="me", reason=""))
    world.plan()
    assert len(world.running(lane="a")) == 8


def test_a_lane_that_comes_back_does_not_catch_up() -> None:
    world = World().join(seats=2)
    for name in "ab":
        world.lane(name).tell(admitted(name, 500, 50_000))
    world.tell(LanePaused(lane="b", revision=1, by="me", reason=""))
    for _ in range(5):
        world.plan()
        for name in world.running():
            world.start(name).finish(name)
        world.after(30)
    world.tell(LaneResumed(lane="b", revision=2, by="me"))
    world.plan()
    assert sorted(fact.spec.lane for fact in world.facts(TaskRequested)[-2:]) == ["a", "b"]


@pytest.mark.parametrize(("level", "seats"), [("none", 10), ("soft", 5), ("hard", 1), ("stop", 0)])
def test_back_pressure_leaves_a_lane_its_factor_of_the_seats(level: str, seats: int) -> None:
    world = World().join(seats=10).lane("hex").press("hex", "pending-games", level)  # type: ignore[arg-type]
    world.plan()
    assert len(world.running(lane="hex")) == seats


def test_back_pressure_of_what_a_stage_drains_does_not_throttle_it() -> None:
    world = World().join().lane("hex").press("hex", "training-data", "stop").press("hex", "evaluation", "stop")
    world.request("x", "export").request("v", "evaluate").request("t", "train").plan()
    assert sorted(world.running()) == ["v", "x"]
    assert ("train", "back-pressure") in world.reasons()


def test_self_play_that_waits_for_a_retry_is_cancelled_when_its_lane_is_paused() -> None:
    world = World().join(seats=1).lane("hex")
    world.plan()
    name = world.running()[0]
    world.tell(LanePaused(lane="hex", revision=1, by="me", reason=""))
    world.join(boot="b2").plan()
    assert [fact.task for fact in world.facts(TaskCancelled)] == [name]


def test_a_lane_is_served_only_while_it_is_enabled_has_a_program_and_an_open_iteration() -> None:
    world = World().join().lane("off", enabled=False).lane("none", commands={"train": ("x",)})
    world.tell(LaneRegistered(lane="idle", spec=lane_spec("idle")))
    world.plan()
    assert world.running() == []
    world.tell(opened("idle"))
    world.plan()
    assert len(world.running(lane="idle")) == 4


# ---- which model plays


def test_the_next_self_play_uses_the_promoted_model_and_after_a_rollback_the_older_one() -> None:
    world = World().join(seats=1).lane("hex")

    def next_model() -> tuple[str, int]:
        world.plan()
        name = world.running()[0]
        spec = world.picture.all.tasks[name].spec
        assert spec is not None
        world.start(name).finish(name)
        return spec.model, len(spec.inputs.get("model", ()))

    assert next_model() == ("", 0)
    artifact = Artifact(name="m", role="model", sha256=SHA, bytes=1)
    world.tell(ModelPromoted(lane="hex", model=SHA, number=1, previous="", gate="g", artifact=artifact, iteration="i"))
    assert next_model() == (SHA, 1)
    world.tell(ModelRolledBack(lane="hex", model=SHA, to="", artifact=None, by="me", reason=""))
    assert next_model() == ("", 0)


# ---- durations


def test_estimates_are_mean_and_p90_with_a_margin_and_defaults_below_three() -> None:
    durations = Durations()
    for seconds in (10, 20):
        durations.note("export", "hex", "cpu4", seconds, 0)
    assert durations.estimate("export", "hex", "cpu4", 300) == (300, 300)
    durations.note("export", "hex", "cpu4", 30, 0)
    assert durations.estimate("export", "hex", "cpu4", 300) == (pytest.approx(24), pytest.approx(36))
    for seconds in range(40, 110, 10):
        durations.note("export", "hex", "cpu4", seconds, 0)
    assert durations.estimate("export", "hex", "cpu4", 300) == (pytest.approx(66), pytest.approx(108))


@any_given(st.integers(0, 10**9), st.floats(0.001, 10**6), st.floats(0.1, 10**4), st.integers(1, 10**6))
def test_self_play_is_sized_by_time_between_one_game_and_a_hundred_thousand(
    games: int, seconds: float, target_s: float, guess: int
) -> None:
    durations = Durations()
    assert durations.games_for("hex", "cpu4", target_s, guess) == min(guess, 100_000)
    durations.note("selfplay", "hex", "cpu4", seconds, games)
    sized = durations.games_for("hex", "cpu4", target_s, guess)
    assert 1 <= sized <= 100_000
    if games and 1 <= games / seconds * target_s <= 100_000:
        assert sized == pytest.approx(games / seconds * target_s, abs=0.51)


def test_self_play_is_sized_from_what_finished_on_nodes_alike() -> None:
    world = World().join("n1", seats=1, cores=4).join("n2", seats=1, cores=32).lane("hex", task_target_s=60)
    world.plan()
    slow = world.running(node="n1")[0]
    world.start(slow).finish(slow, seconds=20, games=100)
    world.after(30).plan()
    fresh = world.picture.all.tasks[world.running(node="n1")[0]].spec
    assert fresh is not None and fresh.work == {"games": 300}
    fast = world.running(node="n2")[0]
    assert world.picture.all.tasks[fast].spec.work == {"games": 64}  # type: ignore[union-attr]


def test_tasks_are_never_so_short_that_the_spawn_rate_leaves_seats_idle() -> None:
    world = World().join("n1", seats=1).lane("hex", task_target_s=4)
    world.plan()
    first = world.running()[0]
    world.start(first).finish(first, seconds=10, games=100)
    world.after(20).plan()
    assert world.picture.all.tasks[world.running()[0]].spec.work == {"games": 40}  # type: ignore[union-attr]
    world.join("n2", seats=31).plan()
    sizes = {task.spec.work["games"] for task in world.picture.all.tasks.values() if task.node == "n2" and task.spec}
    assert sizes == {round(10 * 1.25 * 60 * 32 / 64)}


def test_an_ephemeral_node_gets_shorter_tasks() -> None:
    world = World().join("spot", seats=1, ephemeral=True).lane("hex", task_target_s=60)
    world.plan()
    first = world.running()[0]
    world.start(first).finish(first, seconds=10, games=100)
    world.after(20).plan()
    assert world.picture.all.tasks[world.running()[0]].spec.work == {"games": 300}  # type: ignore[union-attr]


@pytest.mark.parametrize("plays", [True, False])
def test_a_model_that_waits_for_a_person_improves_its_lane_only_when_it_comes_to_play(plays: bool) -> None:
    world = World().lane("hex")
    found = Statistics(llr=3, lower=-3, upper=3, elo=80, elo_low=40, elo_high=120, los=1, pairs=100, games=200)
    world.tell(GateDecided(lane="hex", gate="g1", candidate=SHA, baseline="", iteration="hex-1", verdict="passed", by_hand=True,
                           reason="accepted_h1", counts=(1, 2, 3, 4, 5), statistics=found, rules=GateRules(), policy="p",
                           settings_hash="s"))  # fmt: skip
    lane = world.picture.all.lanes["hex"]
    assert lane.verdicts == () and lane.elo_gains == ()
    world.after(5)
    model = Artifact(name="m", role="model", sha256=SHA, bytes=1)
    world.tell(
        ModelPromoted(lane="hex", model=SHA, number=1, previous="", gate="g1", artifact=model, iteration="hex-1", by="anna")
        if plays else ModelRejected(lane="hex", model=SHA, gate="g1", reason="x", iteration="hex-1")
    )  # fmt: skip
    assert lane.verdicts == (plays,) and lane.elo_gains == ((at(5), 80.0 if plays else 0.0),)
