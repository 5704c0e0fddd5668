"""Where tasks go, in which order, and what says no."""

from __future__ import annotations

import time

import pytest
from hypothesis import given as any_given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from orch_world import GIB, World, opened

from selfplay_orch.core.admission import can_spawn, seat_no
from selfplay_orch.core.limits import Quota, evolve_quota, spawn_rate_left
from selfplay_orch.core.plan import plan
from selfplay_orch.settings import KindRules, Settings
from sparring.contracts import health
from sparring.contracts.selfplay_orch import (
    ReportTaskFailed,
    SeatTaken,
    SpawnAdmitted,
    TaskAssigned,
    TaskDenied,
    TaskRequested,
)
from sparring.decider import Recorded, Watch
from sparring.testing import at


def switch(world: World, state: str, revision: int = 1) -> None:
    world.tell(health.ClusterSwitched(state=state, before="running", revision=revision, by="me", reason=""))  # type: ignore[arg-type]


def lost(world: World, node: str, boot: str = "b1") -> None:
    world.tell(health.NodeLost(node=node, boot=boot, reason="silent", silent_s=20, limit_s=20))


def test_a_placement_is_one_batch_over_task_node_and_quota() -> None:
    world = World().join(seats=1).lane("hex")
    facts = world.plan()
    assert [type(fact) for fact in facts[-4:]] == [TaskRequested, TaskAssigned, SeatTaken, SpawnAdmitted]
    requested, assigned, seat, admitted = facts[-4:]
    assert isinstance(requested, TaskRequested) and isinstance(assigned, TaskAssigned)
    assert isinstance(seat, SeatTaken) and isinstance(admitted, SpawnAdmitted)
    assert requested.spec.iteration == "hex-1" and requested.spec.work == {"games": 64}
    assert (seat.running, seat.limit, admitted.running, admitted.limit) == (1, 1, 1, 500)


def test_a_full_node_gets_nothing_more_and_a_freed_seat_is_filled_at_once() -> None:
    world = World().join(seats=2).lane("hex")
    world.plan()
    assert len(world.running()) == 2 and world.plan() == []
    ended = world.running()[0]
    world.after(20).start(ended).finish(ended)
    seats = [fact for fact in world.plan() if isinstance(fact, SeatTaken)]
    assert len(world.running()) == 2
    assert [fact.freed for fact in seats] == [(f"{ended}-1",)]


def test_requested_work_goes_before_self_play() -> None:
    world = World().join(seats=1).lane("hex").request("x", "export")
    world.plan()
    assert "x" in world.running()


def test_the_pipelines_work_has_a_seat_beyond_self_play_and_nothing_idles_without_it() -> None:
    world = World().join(seats=2).lane("hex")
    world.plan()
    assert len(world.running("selfplay")) == 2
    world.request("x", "export").plan()
    assert world.running("export") == ["x"]
    world.request("v", "evaluate").plan()
    assert "v" not in world.running()
    assert ("evaluate", "capacity") in world.reasons()


@any_given(st.lists(st.sampled_from(["selfplay", "train", "export", "evaluate"]), max_size=60), st.integers(0, 12))
def test_self_play_never_passes_the_capacity_and_all_together_never_the_reserve(kinds: list[str], seats: int) -> None:
    taken: dict[str, str] = {}
    for number, kind in enumerate(kinds):
        if seat_no(taken, kind, KindRules(per_node=32), seats, 1) is None:
            taken[str(number)] = kind
        assert sum(kind == "selfplay" for kind in taken.values()) <= seats
        assert len(taken) <= seats + 1


# ---- the order of checks


def test_the_first_check_that_says_no_is_the_one_recorded() -> None:
    """Everything is wrong at once; what is wrong is repaired in the order of the checks."""
    world = World(Settings(spawns_per_minute=6)).join(seats=1).lane("hex", enabled=False)
    world.request("w", "export").plan()
    world.after(5).press("hex", "evaluation", "stop").beat(memory=0.9)
    world.tell(health.NodeSuspected(node="n1", boot="b1", silent_s=11, limit_s=10))
    world.request("first", "train").request("second", "train")

    def reason() -> str:
        spec = world.picture.all.tasks["first"].spec
        return can_spawn("train", "n1", world.context(), spec).reason

    switch(world, "paused")
    assert reason() == "cluster paused"
    switch(world, "running", 2)
    assert reason() == "node suspected"
    world.tell(health.NodeRecovered(node="n1", boot="b1", silent_s=1))
    world.tell(health.CapacityRetargeted(node="n1", seats=0, before=1, terms=()))
    assert reason() == "capacity"
    world.tell(health.CapacityRetargeted(node="n1", seats=4, before=0, terms=()))
    assert reason() == "memory"
    world.beat(cpu=0.9)
    assert reason() == "CPU"
    world.beat(disk_bytes=GIB // 2)
    assert reason() == "disk"
    world.beat()
    assert reason() == "back-pressure"
    world.press("hex", "evaluation", "none")
    assert reason() == ""
    world.plan()
    spec = world.picture.all.tasks["second"].spec
    # the node's own limit comes before the rate of nothing, and the rate before the node
    assert can_spawn("train", "n1", world.context(), spec).reason == "spawn rate"
    world.after(15).beat()
    assert can_spawn("train", "n1", world.context(), spec).reason == "node limit"


def test_the_cluster_limit_holds_over_all_nodes() -> None:
    world = World().lane("hex", enabled=False)
    for number in range(6):
        world.join(f"n{number}", seats=4).request(f"t{number}", "train")
    world.plan()
    assert len(world.running("train")) == 3
    assert ("train", "cluster limit") in world.reasons()


def test_asking_can_spawn_has_no_side_effect_and_names_the_readings() -> None:
    world = World().join().lane("hex").beat()
    before = world.picture.dump()
    answer = can_spawn("selfplay", "n1", world.context())
    assert answer.allowed and [term.name for term in answer.terms][-1] == "age s"
    assert can_spawn("selfplay", "n9", world.context()).reason == "unknown node"
    assert world.picture.dump() == before


def test_a_standing_denial_is_one_fact_until_its_reason_changes() -> None:
    world = World().join().lane("hex", enabled=False).request("t", "train", gpu=True).request("u", "train", gpu=True)
    for _ in range(5):
        world.after(30).plan()
    assert world.reasons() == [("train", "GPU")]
    switch(world, "paused")
    world.after(1).plan()
    world.after(1).plan()
    assert world.reasons() == [("train", "GPU"), ("train", "cluster paused")]


def test_a_denial_that_was_lifted_is_said_again_but_not_more_than_once_a_minute() -> None:
    world = World().join(seats=1).lane("hex", enabled=False)
    for number in range(12):
        world.request(f"v{number}", "evaluate")
    for _ in range(10):
        world.plan()
        first = world.running("evaluate")[0]
        world.after(10).start(first).finish(first)
    assert 2 <= len(world.facts(TaskDenied)) <= 4


def test_a_node_that_is_not_heard_gets_nothing_though_nobody_declared_it_lost() -> None:
    """With health down nobody does; it got tasks that nobody ran."""
    world = World().join("n1", seats=1).join("n2", seats=1).lane("hex")
    world.silent.add("n1")
    world.beat("n2")
    world.plan()
    assert [fact.node for fact in world.facts(TaskAssigned)] == ["n2"]
    world.after(31).request("x", "export")
    world.plan()
    assert len(world.facts(TaskAssigned)) == 1
    denied = [fact for fact in world.facts(TaskDenied) if fact.kind == "export"][-1]
    assert (denied.reason, denied.limit) == ("no fresh reading", 30.0)
    world.beat("n1").after(2)
    world.plan()
    assert {fact.node for fact in world.facts(TaskAssigned)} == {"n1", "n2"}


def silent_world(nodes: int, seats: int = 1) -> World:
    """Nodes of which nobody hears anything."""
    world = World().lane("hex")
    for number in range(nodes):
        world.join(f"n{number}", seats=seats)
    world.silent |= set(world.picture.all.nodes)
    return world


@pytest.mark.parametrize("watch", [Watch(1_000.0, 0.5), Watch(0.5, 1_000.0)], ids=["started", "connected again"])
def test_a_planner_that_has_just_begun_to_listen_writes_no_denials_and_places_once_nodes_beat(watch: Watch) -> None:
    world = silent_world(5).request("x", "export")
    world.watch = watch
    world.plan()
    assert world.facts(TaskDenied) == world.facts(TaskAssigned) == []
    answer = can_spawn("export", "n1", world.context())
    assert (answer.allowed, answer.reason, answer.actual, answer.limit) == (False, "listening too short", 0.5, 30.0)
    world.silent.clear()
    world.after(2).plan()
    assert {fact.node for fact in world.facts(TaskAssigned)} == {f"n{number}" for number in range(5)}
    assert "x" in world.running("export") and world.reasons() == []


def test_unheard_nodes_are_one_denial_of_a_kind_and_say_for_how_long_they_were_silent() -> None:
    world = silent_world(20).request("x", "export").request("y", "export")
    for number in range(5):
        world.beat(f"n{number}")
    for _ in range(5):
        world.after(31).plan()
    denied = {fact.kind: fact for fact in world.facts(TaskDenied)}
    assert len(world.facts(TaskDenied)) == 2
    assert (denied["selfplay"].node, denied["selfplay"].lane) == ("", "")
    assert (denied["export"].node, denied["export"].lane) == ("", "hex")
    for fact in denied.values():
        assert (fact.reason, fact.limit) == ("no fresh reading", 30.0) and fact.actual >= 31
        assert [(term.name, term.value) for term in fact.terms] == [("nodes: no fresh reading", 20)]
    assert denied["selfplay"].actual == 1_000, (
        "a node that was never heard was silent for as long as it was listened for"
    )


def test_a_silent_node_beside_others_that_are_denied_costs_at_most_four_facts_a_minute() -> None:
    """The rate and the silence are both true of the kind, in turns."""
    world = World().join("n0", seats=1).join("n1", seats=12).lane("hex")
    world.silent.add("n0")
    for moment in range(180):
        for task in world.running() if moment % 14 == 0 else ():
            world.start(task).finish(task)
        world.after(1).plan()
    assert {reason for _, reason in world.reasons()} == {"no fresh reading", "spawn rate"}
    assert len(world.reasons()) <= 12


def test_what_forbids_everything_is_said_before_the_silence_of_a_node() -> None:
    world = silent_world(3)
    switch(world, "paused")
    world.plan()
    assert world.reasons() == [("selfplay", "cluster paused")]


def test_a_grant_carries_the_readings_and_their_age() -> None:
    world = World().join(seats=1).lane("hex").beat().after(3)
    world.plan()
    terms = {term.name: term.value for term in world.facts(TaskAssigned)[0].terms}
    assert terms["age s"] == 3 and terms["CPU of others"] == 0.1


def test_training_and_evaluation_stay_off_ephemeral_nodes() -> None:
    world = World().join("spot", ephemeral=True).lane("hex").request("t", "train").request("v", "evaluate")
    world.plan()
    assert world.running("train") == world.running("evaluate") == []
    assert len(world.running("selfplay")) == 4
    assert {task.spec.work["games"] for task in world.picture.all.tasks.values() if task.running and task.spec} == {64}


def test_a_long_task_does_not_go_where_life_is_short() -> None:
    settings = Settings(kinds={"distill": KindRules(timeout_s=7200, expected_s=3600)})
    world = World(settings).join("spot", ephemeral=True).lane("hex", enabled=False).request("d", "distill")
    world.plan()
    assert world.reasons() == [("distill", "expected life")]


def test_a_node_that_takes_only_some_kinds_gets_only_those() -> None:
    world = World().join("trainer", kinds=("train",)).lane("hex").request("t", "train").request("x", "export")
    world.plan()
    assert world.running() == ["t"]
    assert ("export", "kind not taken there") in world.reasons()


def test_an_incompatible_or_draining_node_gets_no_work() -> None:
    world = World().join("old", compatible=False).join("leaving").lane("hex")
    world.tell(health.NodeDraining(node="leaving", boot="b1", reason="", by="me", grace_s=60))
    world.tell(health.NodeSuspected(node="leaving", boot="b1", silent_s=11, limit_s=10))
    world.tell(health.NodeRecovered(node="leaving", boot="b1", silent_s=11))
    world.plan()
    assert world.running() == []


def test_a_failed_node_cools_down_and_a_retry_prefers_another() -> None:
    world = World().join("n1", seats=1).join("n2", seats=8).lane("hex", enabled=False).request("x", "export")
    world.plan()
    where = world.picture.all.tasks["x"].node
    world.start("x").order(ReportTaskFailed(task="x", attempt=1, node=where, reason="exit 1"))
    assert can_spawn("export", where, world.context()).reason == "cool-down"
    world.after(2).plan()
    assert world.picture.all.tasks["x"].node not in ("", where)


def test_a_waiting_task_gets_room_in_memory_before_more_self_play() -> None:
    world = World().join(seats=2).lane("hex").beat(memory=0.5)
    world.plan()
    world.request("x", "export", memory_bytes=10 * GIB).plan()
    ended = world.running("selfplay")[0]
    world.after(20).beat(memory=0.5).start(ended).finish(ended)
    world.plan()
    assert len(world.running("selfplay")) == 1, "its memory is kept for the export"
    world.after(20).beat(memory=0.2).plan()
    assert world.running("export") == ["x"] and len(world.running("selfplay")) == 2


def test_a_waiting_task_that_fits_nowhere_idles_nothing() -> None:
    world = World().join(seats=2).lane("hex").beat(memory=0.5).request("x", "export", memory_bytes=100 * GIB)
    world.plan()
    assert len(world.running("selfplay")) == 2


@pytest.mark.parametrize("first", ["hex", "ttt"])
def test_what_one_lane_was_refused_holds_for_another_but_not_for_what_is_its_own(first: str) -> None:
    world = World().join().lane("hex", enabled=False).lane("ttt", enabled=False).beat(memory=0.9)
    world.tell(health.BreakerOpened(breaker="kind-hex-train", scope="kind", lane="hex", kind="train", failures=5, limit=5,
                                    times=1, until=at(600), reason="exit code 1"))  # fmt: skip
    for lane in (first, {"hex": "ttt", "ttt": "hex"}[first]):
        world.after(0.1).request(f"t-{lane}", "train", lane=lane)
    world.plan()
    assert {fact.lane: fact.reason for fact in world.facts(TaskDenied)} == {"hex": "breaker", "ttt": "memory"}
    world.beat(memory=0.5).after(2).plan()
    assert world.running("train") == ["t-ttt"]


# ---- the spawn rate


@any_given(st.lists(st.floats(0, 5), max_size=120), st.integers(6, 60))
def test_no_window_of_a_minute_or_of_ten_seconds_holds_more_spawns_than_allowed(
    waits: list[float], per_minute: int
) -> None:
    quota, now, spawned = Quota(), 0.0, list[float]()
    for number, wait in enumerate(waits):
        now += wait
        if spawn_rate_left(quota, at(now), per_minute) <= 0:
            continue
        fact = SpawnAdmitted(kind="selfplay", task=f"t{number}-1", node="n", running=1, limit=9)
        quota = evolve_quota(quota, Recorded(number + 1, at(now), fact))
        spawned.append(now)
        assert sum(now - one < 60 for one in spawned) <= per_minute
        assert sum(now - one < 10 for one in spawned) <= max(1, per_minute // 6)


def test_the_rate_recovers_with_time_and_grows_with_the_seats() -> None:
    world = World().join("n1", seats=30).lane("hex")
    world.plan()
    assert len(world.running()) == 10
    world.after(61).plan()
    assert len(world.running()) == 20
    big = World().join("a", seats=32).join("b", seats=32).join("c", seats=32).join("d", seats=32).lane("hex")
    big.plan()
    assert len(big.running()) == 2 * 128 // 6


# ---- bounds


def planned(queued: int) -> float:
    """Seconds of CPU that a plan takes over so many waiting tasks and 400 seats."""
    world = World().lane("hex")
    for number in range(100):
        world.join(f"n{number}", seats=4)
    for number in range(queued):
        world.request(f"v{number}", "evaluate")
    context, began = world.context(), time.process_time()
    assert len(plan(context)) > 10
    return time.process_time() - began


def test_a_plan_grows_with_the_tasks_that_wait_not_with_their_square() -> None:
    # ten times the tasks take about five times as long; a plan that compared them with each other would take a hundred times
    assert planned(5_000) < 30 * min(planned(500) for _ in range(3))


def planned_in_silence(lanes: int) -> float:
    """Seconds of CPU that a plan takes over 500 nodes that nobody hears, and an export that waits in each lane."""
    world = silent_world(500).request("x", "export")
    for number in range(1, lanes):
        world.lane(f"lane{number}").request(f"x{number}", "export", lane=f"lane{number}")
    context, began = world.context(), time.process_time()
    plan(context)
    return time.process_time() - began


def test_a_plan_over_nodes_that_are_not_heard_costs_the_same_for_one_lane_and_for_fifty() -> None:
    # fifty times the lanes take about twice as long; a plan that asked each lane at each node would take fifty times
    assert min(planned_in_silence(50) for _ in range(3)) < 8 * min(planned_in_silence(1) for _ in range(3))


STEPS = st.lists(
    st.tuples(st.sampled_from(["plan", "start", "finish", "fail", "lose", "join", "request"]), st.integers(0, 9)),
    max_size=60,
)


@hypothesis_settings(max_examples=40)
@any_given(STEPS)
def test_no_limit_is_passed_and_the_picture_survives_a_restart_whatever_happens(steps: list[tuple[str, int]]) -> None:
    world = World().join("n0", 3).join("n1", 2).lane("hex").lane("ttt")
    for number, (what, which) in enumerate(steps):
        world.after(3)
        runs = sorted(world.running())
        task = runs[which % len(runs)] if runs else ""
        if what == "plan":
            world.plan()
        elif what == "start" and task:
            world.start(task)
        elif what == "finish" and task:
            world.finish(task)
        elif what == "fail" and task:
            found = world.picture.all.tasks[task]
            world.order(ReportTaskFailed(task=task, attempt=found.attempt, node=found.node, reason="exit 1"))
        elif what == "lose":
            lost(world, f"n{which % 2}")
        elif what == "join":
            world.join(f"n{which % 2}", 2 + which % 2, boot=f"b{number}")
        elif what == "request":
            world.request(f"r{number}", ["export", "train", "evaluate"][which % 3])
        for node in ("n0", "n1"):
            kinds = [world.picture.all.tasks[one].spec.kind for one in world.running(node=node)]  # type: ignore[union-attr]
            assert len(kinds) <= 4 and kinds.count("selfplay") <= 3 and kinds.count("train") <= 1
        for fact in world.facts(SeatTaken, SpawnAdmitted):
            assert fact.running <= fact.limit
    copy = type(world.picture)()
    for one in world.log:
        copy.apply(one)
    assert copy.dump() == world.picture.dump()
    restored = type(world.picture)()
    restored.load(world.picture.dump())
    assert restored.dump() == world.picture.dump()


def test_an_iteration_is_named_on_what_belongs_to_it() -> None:
    world = World().join(seats=1).lane("hex")
    world.tell(opened("hex", 2))
    world.plan()
    assert world.facts(TaskRequested)[0].spec.iteration == "hex-2"
