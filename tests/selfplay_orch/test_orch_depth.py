"""Every kind of task, nodes that do not live long, results that come too late: each rule in its words."""

from __future__ import annotations

import pytest
from orch_world import World

from selfplay_orch.core.look import Look
from selfplay_orch.settings import Settings
from sparring.contracts.health import NodeDrained, NodeLost
from sparring.contracts.lanes import KindNeeds
from sparring.contracts.parts import Check, TaskSpec
from sparring.contracts.selfplay_orch import (
    ReportTaskFinished,
    RequestTask,
    TaskAssigned,
    TaskCancelled,
    TaskFinished,
    TaskOrphaned,
)
from sparring.contracts.sync import BatchAdmitted, GamesRecorded, RecordGames
from sparring.decider import Context
from sparring.testing import at

SHA = "a" * 64


def lost(node: str = "n1") -> NodeLost:
    return NodeLost(node=node, boot="b1", reason="silent", silent_s=20, limit_s=20)


# ---- kinds


@pytest.mark.parametrize(
    ("kind", "on_two_nodes", "reason"),
    [
        ("transfer", 4, "node limit"),
        ("export", 4, "node limit"),
        ("evaluate", 2, "cluster limit"),
        ("train", 2, "node limit"),
        ("tune", 1, "cluster limit"),
        ("distill", 4, "node limit"),
        ("anything_else", 4, "node limit"),
    ],
)
def test_every_kind_has_its_limits_and_users_kinds_those_of_other(kind: str, on_two_nodes: int, reason: str) -> None:
    world = World().join("n1", seats=8).join("n2", seats=8).lane("hex", enabled=False)
    for number in range(8):
        world.request(f"t{number}", kind)
    world.plan()
    assert len(world.running(kind)) == on_two_nodes
    assert (kind, reason) in world.reasons()
    for name in world.running(kind):
        world.start(name).finish(name)
    world.plan()
    assert len(world.running(kind)) == min(on_two_nodes, 8 - on_two_nodes), "a freed seat is filled by the same call"


def test_a_users_kind_gets_its_timeout_its_attempts_and_its_durations_like_every_other() -> None:
    world = World().join("n1", seats=8).lane("hex", enabled=False)
    for number in range(3):
        spec = TaskSpec(kind="distill", lane="hex", seed=1, argv=("x",), timeout_s=0)
        world.order(RequestTask(task=f"t{number}", spec=spec, by="me"))
        assert world.picture.all.tasks[f"t{number}"].spec.timeout_s == Settings().kind("other").timeout_s  # type: ignore[union-attr]
        world.plan()
        world.start(f"t{number}").finish(f"t{number}", seconds=50)
    look = Look(world.context())
    assert look.estimate("distill", "hex", world.picture.all.nodes["n1"]) == (60.0, 60.0)


def test_a_kind_of_a_users_own_is_cancelled_when_its_wait_is_over_like_every_other() -> None:
    world = World().lane("hex", enabled=False).request("t", "distill", expires_s=10)
    world.after(11).plan()
    assert [fact.reason for fact in world.facts(TaskCancelled)] == ["expired"]


def test_a_task_goes_where_its_lane_says_it_needs_to() -> None:
    needs = {"train": KindNeeds(gpu=True)}
    world = World().join("cpu").join("gpu", gpus=("A100",)).lane("hex", enabled=False, needs=needs)
    world.request("t", "train", gpu=True).plan()
    assert [fact.node for fact in world.facts(TaskAssigned)] == ["gpu"]


# ---- nodes that do not live long


def lives(world: World, *seconds: float, drained: bool = False) -> World:
    """Ephemeral nodes that came and went."""
    for number, life in enumerate(seconds):
        name = f"old{number}"
        world.join(name, ephemeral=True).after(life)
        world.tell(NodeDrained(node=name, boot="b1") if drained else lost(name))
    return world


@pytest.mark.parametrize("drained", [False, True])
def test_the_expected_life_is_fitted_from_what_earlier_nodes_lived(drained: bool) -> None:
    """Preempted ones too, which drain before they go; half an hour is assumed below three of them."""
    few = lives(World(), 500, 700, drained=drained).join("n1", ephemeral=True)
    assert Look(few.context()).life_left(few.picture.all.nodes["n1"]) == 1800
    many = lives(World(), 500, 700, 900, drained=drained).join("n1", ephemeral=True)
    assert Look(many.context()).life_left(many.picture.all.nodes["n1"]) == 700
    many.after(200)
    assert Look(many.context()).life_left(many.picture.all.nodes["n1"]) == 500
    many.after(5000)
    assert Look(many.context()).life_left(many.picture.all.nodes["n1"]) == 175, (
        "one that outlives the mean gets a quarter"
    )


def test_only_work_that_fits_into_what_is_left_of_a_nodes_life_is_placed_there() -> None:
    short = lives(World(), 200, 200, 200).join("n1", ephemeral=True).lane("hex", enabled=False).request("t", "export")
    short.plan()
    assert ("export", "expected life") in short.reasons() and not short.running()
    long = lives(World(), 900, 900, 900).join("n1", ephemeral=True).lane("hex", enabled=False).request("t", "export")
    long.plan()
    assert long.running() == ["t"]


@pytest.mark.parametrize("kind", ["train", "evaluate", "tune"])
def test_training_evaluation_and_tuning_stay_off_ephemeral_nodes_unless_that_is_allowed(kind: str) -> None:
    def placed(settings: Settings) -> list[str]:
        world = World(settings).join("n1", ephemeral=True).lane("hex", enabled=False).request("t", kind)
        world.plan()
        return world.running()

    assert placed(Settings()) == []
    allowed = Settings.model_validate({"kinds": {kind: {"on_ephemeral": True, "expected_s": 60}}})
    assert placed(allowed) == ["t"]


# ---- results that come too late


def test_a_late_result_is_superseded_but_its_games_are_kept() -> None:
    """The node was lost and its task placed again; when it comes back its games count, its authority does not."""
    from sync.core.batch import BATCH, record

    world = World().join("n1", seats=1).lane("hex")
    world.plan()
    (task,) = world.running("selfplay")
    world.start(task)
    world.tell(lost())
    world.join("n2", seats=1)
    world.plan()
    assert [fact.task for fact in world.facts(TaskOrphaned)] == [task]
    assert world.picture.all.tasks[task].node == "n2"
    late = ReportTaskFinished(task=task, attempt=1, node="n1", seconds=9, files=(), evidence={"games": 7})
    (told,) = world.order(late)
    assert isinstance(told, TaskFinished) and told.superseded
    assert world.order(late) == [], "and it is told once"
    assert world.running("selfplay") == [task], "the attempt that runs goes on"
    games = RecordGames(batch=f"{task}-1", lane="hex", task=task, attempt=1, node="n1", model="", sha256=SHA, bytes=1,
                        games=7, positions=70, check=Check(ok=True, games=7, positions=70), url="u")  # fmt: skip
    kept = record(games, BATCH.initial, Context(now=at(0), gathered=(SHA, 1)))
    assert any(isinstance(fact, GamesRecorded) for fact in kept)
    assert [fact.games for fact in kept if isinstance(fact, BatchAdmitted)] == [7]


def test_a_node_that_is_lost_twice_orphans_its_tasks_once() -> None:
    world = World().join("n1", seats=2).lane("hex")
    world.plan()
    assert len(world.running()) == 2
    world.tell(lost())
    world.plan()
    world.tell(lost())
    world.plan()
    assert len(world.facts(TaskOrphaned)) == 2
