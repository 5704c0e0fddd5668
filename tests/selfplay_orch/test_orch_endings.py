"""What ends without saying so, and what agents are told."""

from __future__ import annotations

import pytest
from orch_world import World

from selfplay_orch.settings import Settings
from sparring.contracts import health
from sparring.contracts.node_agent import HaltNode, StartTask, StopTask
from sparring.contracts.selfplay_orch import (
    CancelTask,
    TaskAbandoned,
    TaskAssigned,
    TaskFailed,
    TaskOrphaned,
    TaskStarted,
)
from sparring.decider import Watch
from sparring.testing import at


def switch(world: World, state: str, revision: int = 1) -> None:
    world.tell(health.ClusterSwitched(state=state, before="running", revision=revision, by="me", reason=""))  # type: ignore[arg-type]


def lost(world: World, node: str, boot: str = "b1") -> None:
    world.tell(health.NodeLost(node=node, boot=boot, reason="silent", silent_s=20, limit_s=20))


# ---- what ends without saying so


def test_the_tasks_of_a_lost_node_are_orphaned_once_and_placed_again_older_first_whatever_the_rate() -> None:
    world = World(Settings(spawns_per_minute=6)).join("n1", seats=8).lane("hex", enabled=False)
    for number in range(3):
        world.after(11).request(f"x{number}", "distill" if number else "export").plan()
    old = sorted(world.running())
    world.join("n2", seats=1)
    lost(world, "n1")
    facts = world.plan()
    assert sorted(fact.task for fact in facts if isinstance(fact, TaskOrphaned)) == old
    placed = [fact.task for fact in facts if isinstance(fact, TaskAssigned)]
    assert placed == ["x0", "x1"], "two seats, the older first, though the rate is used up"
    assert world.plan() == []


def test_the_tasks_of_a_retired_node_are_placed_again() -> None:
    world = World().join("n1").lane("hex", enabled=False).request("x", "export")
    world.plan()
    lost(world, "n1")
    world.tell(health.NodeRetired(node="n1", boot="b1", by="me", reason="broken"))
    world.join("n2")
    assert [type(fact) for fact in world.plan()][:2] == [TaskOrphaned, TaskAssigned]
    assert world.picture.all.tasks["x"].node == "n2"


def test_a_node_that_comes_back_with_another_boot_has_lost_its_tasks() -> None:
    world = World().join("n1").lane("hex", enabled=False).request("x", "export")
    world.plan()
    world.join("n1", boot="b2")
    assert [type(fact) for fact in world.plan()][:2] == [TaskOrphaned, TaskAssigned]
    assert world.picture.all.tasks["x"].boot == "b2"


def test_a_task_that_its_nodes_beat_does_not_list_for_the_lease_is_orphaned() -> None:
    world = World().join().lane("hex", enabled=False).request("x", "export")
    world.plan()
    world.start("x")
    assert world.after(29).beat().plan() == []
    assert type(world.after(2).beat().plan()[0]) is TaskOrphaned


@pytest.mark.parametrize("why", ["stale beat", "another boot", "listed", "blind"])
def test_only_a_fresh_beat_of_the_same_life_takes_a_lease_away(why: str) -> None:
    world = World().join().lane("hex", enabled=False).request("x", "export")
    world.plan()
    world.start("x").after(40)
    world.beat(running=[("x", 1)] if why == "listed" else [], boot="b0" if why == "another boot" else "b1")
    if why == "stale beat":
        world.after(10)
    if why == "blind":
        world.tell(health.ObservationLost(silent=3, nodes=4, until=at(world.now + 60)))
    assert world.plan() == []


def test_what_a_node_lists_is_not_placed_again_while_the_report_of_its_start_waits_to_be_heard() -> None:
    """An owner that is behind placed what ran already a second and a third time, and was further behind by it."""
    world = World().join().lane("hex", enabled=False).request("x", "export")
    world.plan()
    assert world.after(29).beat(running=[("x", 1)]).plan() == []
    assert [type(fact) for fact in world.after(2).beat(running=[("x", 1)]).plan()] == [TaskStarted]
    assert world.start("x").after(600).beat(running=[("x", 1)]).plan() == [], "the report says nothing new"
    assert [type(fact) for fact in world.after(61).beat(running=[("x", 1)]).plan()] == [TaskFailed]


def test_who_has_just_begun_to_listen_takes_nothing_for_not_started() -> None:
    """After an outage of the server every beat is old, and reports lie in the nodes' spools."""
    world = World().join().lane("hex", enabled=False).request("x", "export")
    world.plan()
    world.silent.add("n1")
    world.after(180).watch = Watch(1, 1_000)
    assert not [fact for fact in world.plan() if isinstance(fact, TaskOrphaned)]
    world.after(11).watch = Watch(12, 1_011)
    assert [fact.reason for fact in world.plan() if isinstance(fact, TaskOrphaned)] == ["did not start within 120 s"]


def test_a_task_past_its_timeout_is_failed_and_its_child_stopped() -> None:
    world = World().join().lane("hex", enabled=False).request("x", "export", max_attempts=1)
    world.plan()
    world.start("x").after(600 + 59).beat(running=[("x", 1)])
    assert world.plan() == []
    facts = world.after(2).plan()
    assert [type(fact) for fact in facts] == [TaskFailed, TaskAbandoned]
    world.after(7).beat(running=[("x", 1)]).plan()
    assert [order.task for order in world.sent if isinstance(order, StopTask)] == ["x"]


def test_what_was_asked_for_with_an_end_is_cancelled_when_it_passed() -> None:
    world = World().lane("hex", enabled=False).request("x", "export", expires_s=30)
    assert world.after(29).plan() and "x" in world.picture.all.tasks
    world.after(2).plan()
    assert "x" not in world.picture.all.tasks


# ---- orders to agents


def test_an_assigned_task_is_ordered_until_it_starts() -> None:
    world = World().join(seats=1).lane("hex")
    world.plan()
    name = world.running()[0]
    assert {order.task for order in world.sent if isinstance(order, StartTask)} == {name}
    world.start(name)
    world.sent.clear()
    world.plan()
    assert world.sent == []


def test_a_cancelled_task_is_stopped_until_a_beat_no_longer_lists_it() -> None:
    world = World().join().lane("hex", enabled=False).request("x", "export")
    world.plan()
    world.start("x").beat(running=[("x", 1)]).order(CancelTask(task="x", reason="enough"))
    world.sent.clear()
    world.after(1).plan()
    assert [type(order) for order in world.sent] == [StopTask]
    world.after(7).beat()
    world.sent.clear()
    world.plan()
    assert world.sent == []


def test_a_halt_reaches_every_node_and_nothing_starts() -> None:
    world = World().join("n1").join("n2").lane("hex")
    switch(world, "halted")
    world.request("x", "export").plan()
    assert {order.node for order in world.sent if isinstance(order, HaltNode)} == {"n1", "n2"}
    assert world.running() == [] and ("export", "cluster halted") in world.reasons()


def test_a_pause_stops_self_play_and_training_and_lets_the_rest_go_on() -> None:
    world = World().join().lane("hex").request("x", "export").request("t", "train")
    switch(world, "paused")
    world.plan()
    assert world.running() == ["x"]
