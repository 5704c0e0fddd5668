"""Every node busy, no limit passed, nothing starves: the planner against a log in memory, stale planners included."""

from __future__ import annotations

import random

import pytest
from hypothesis import given as any_given
from hypothesis import strategies as st
from orch_world import heartbeat

from selfplay_orch.core.limits import NODE
from selfplay_orch.core.picture import WorkPicture
from selfplay_orch.core.plan import plan
from selfplay_orch.core.shares import capped, shares
from selfplay_orch.settings import Settings
from sparring.contracts.base import Fact
from sparring.contracts.health import BackpressureChanged, ClusterSwitched, NodeJoined, NodeLost
from sparring.contracts.lanes import LaneSpec
from sparring.contracts.node_agent import StartTask
from sparring.contracts.parts import TaskSpec
from sparring.contracts.pipeline import IterationOpened, LaneRegistered
from sparring.contracts.selfplay_orch import (
    SeatTaken,
    TaskAssigned,
    TaskCancelled,
    TaskDenied,
    TaskFinished,
    TaskOrphaned,
    TaskRequested,
    TaskStarted,
)
from sparring.decider import Append, Reading
from sparring.errors import LostRace
from sparring.testing import at
from sparring.testing.world import World

TRAIN = TaskSpec(kind="train", lane="hex", seed=1, argv=("x",), timeout_s=100)


def opened(name: str = "hex") -> list[Fact]:
    spec = LaneSpec.model_validate({"name": name, "game": "hex", "commands": {"selfplay": ("x", "{job}", "{out}")}})
    iteration = IterationOpened(iteration=f"{name}-1", lane=name, number=1, min_positions=1, min_new_games=1,
                                games_before=0, positions_before=0, deadline_at=at(999))  # fmt: skip
    return [LaneRegistered(lane=name, spec=spec), iteration]


def joined(node: str, seats: int, boot: str = "b1") -> NodeJoined:
    return NodeJoined(node=node, boot=boot, build="1", compatible=True, ephemeral=False, tags=(), kinds=(), machine=node,
                      cores=8, memory_bytes=2**35, gpus=(), seats=seats)  # fmt: skip


def world(*facts: Fact) -> World:
    """Two nodes beat, have room and list nothing that they run; the rest is told."""
    one = World(WorkPicture, plan, Settings(spawns_per_minute=100_000), *facts)
    one.readings = {f"tel.{node}.heartbeat": beat(node) for node in ("n1", "n2")}
    return one


def beat(node: str = "n1", age_s: float = 0.0) -> Reading:
    return Reading(heartbeat(node, [], "b1"), age_s)


def test_free_seats_are_filled_with_self_play_and_not_one_more() -> None:
    one = world(*opened(), joined("n1", 3), joined("n2", 2))
    one.tick(times=3)
    assert len(one.of(TaskAssigned)) == 5
    assert max(fact.running for fact in one.of(SeatTaken)) == 3


def test_four_racing_planners_at_a_limit_of_32_admit_32() -> None:
    rng = random.Random(1)
    one = world(*opened(), joined("n1", 32))
    base = len(one.facts)
    actions = [action for _ in range(4) for action in plan(one.context(base)) if isinstance(action, Append)]
    rng.shuffle(actions)
    for action in actions:
        one.carry_out(action)
    for _ in range(10):
        one.tick(up_to=rng.randrange(base, len(one.facts) + 1))
        one.tick()
    state = NODE.initial
    for fact in one.facts:
        if isinstance(fact.fact, SeatTaken):
            state = NODE.evolve(state, fact)
    assert len(state.taken) == 32
    assert len(one.of(TaskAssigned)) == 32


def test_an_append_on_a_stale_guard_loses_the_race() -> None:
    one = world(*opened(), joined("n1", 1))
    with pytest.raises(LostRace):
        one.add(SeatTaken(node="n1", task="x-1", kind="selfplay", running=1, limit=1), expect={NODE.ref("n1"): 5})


def test_a_seat_is_filled_again_when_its_task_ended() -> None:
    one = world(*opened(), joined("n1", 1))
    one.tick()
    task = one.of(TaskAssigned)[0].task
    one.add(TaskStarted(task=task, attempt=1, node="n1"))
    one.add(
        TaskFinished(
            task=task, attempt=1, node="n1", kind="selfplay", lane="hex", seconds=1, files=(), evidence={"games": 5}
        )
    )
    one.tick()
    assert len(one.of(TaskAssigned)) == 2
    assert one.of(SeatTaken)[-1].freed == (f"{task}-1",)


def test_a_lost_nodes_task_is_orphaned_once_and_placed_again() -> None:
    one = world(*opened(), joined("n1", 1), TaskRequested(task="old", spec=TRAIN, by="pipeline"))
    one.tick()
    one.add(NodeLost(node="n1", boot="b1", reason="silent", silent_s=20, limit_s=20), joined("n2", 1))
    one.tick(times=3)
    assert [fact.task for fact in one.of(TaskOrphaned) if fact.task == "old"] == ["old"]
    placed = [(fact.attempt, fact.node) for fact in one.of(TaskAssigned) if fact.task == "old"]
    assert placed == [(1, "n1"), (2, "n2")]


def test_a_restarted_nodes_tasks_are_orphaned_at_once() -> None:
    one = world(*opened(), joined("n1", 1))
    one.tick()
    one.add(joined("n1", 1, boot="b2"))
    one.tick()
    assert [fact.reason for fact in one.of(TaskOrphaned)] == ["the node restarted"]


def test_a_task_that_a_fresh_beat_does_not_list_is_orphaned_after_its_lease() -> None:
    one = world(*opened(), joined("n1", 1))
    one.tick()
    one.readings = {"tel.n1.heartbeat": beat(age_s=1.0)}
    one.tick(29)
    assert one.of(TaskOrphaned) == []
    one.readings = {"tel.n1.heartbeat": beat(age_s=60.0)}
    one.tick(2)
    assert one.of(TaskOrphaned) == [], "an old beat proves nothing"
    one.readings = {"tel.n1.heartbeat": beat(age_s=1.0)}
    one.tick()
    assert one.of(TaskOrphaned)


def test_the_pipelines_work_has_a_seat_of_its_own() -> None:
    one = world(*opened(), joined("n1", 1))
    one.tick()
    one.add(TaskRequested(task="train-1", spec=TRAIN, by="pipeline"))
    one.tick()
    assert "train-1" in {fact.task for fact in one.of(TaskAssigned)}


def test_a_paused_cluster_places_nothing_and_says_so_once_per_kind() -> None:
    one = world(*opened(), joined("n1", 1), TaskRequested(task="train-1", spec=TRAIN, by="pipeline"))
    one.add(ClusterSwitched(state="paused", before="running", revision=1, by="me", reason="x"))
    one.tick(times=3)
    assert one.of(TaskAssigned) == []
    assert sorted(fact.kind for fact in one.of(TaskDenied)) == ["selfplay", "train"]


def test_back_pressure_stop_ends_self_play_and_names_itself() -> None:
    pressed = BackpressureChanged(queue="hex-training-data", lane="hex", name="training-data", level="stop", before="none",
                                  factor=0.0, depth=9, soft=1, hard=2, age_s=0)  # fmt: skip
    one = world(*opened(), joined("n1", 2), pressed)
    one.tick(times=2)
    assert one.of(TaskAssigned) == []
    assert [fact.reason for fact in one.of(TaskDenied)] == ["back-pressure"]


def test_two_lanes_share_the_seats() -> None:
    one = world(*opened("hex"), *opened("ttt"), joined("n1", 4))
    one.tick(times=3)
    assert sorted(fact.spec.lane for fact in one.of(TaskRequested)) == ["hex", "hex", "ttt", "ttt"]


def test_an_assigned_task_is_ordered_to_start() -> None:
    one = world(*opened(), joined("n1", 1))
    one.tick(times=3)
    assert [order.task for order in one.orders(StartTask)] == [fact.task for fact in one.of(TaskAssigned)]


def test_a_request_whose_time_is_over_is_cancelled() -> None:
    one = world(*opened(), TaskRequested(task="late", spec=TRAIN, by="me", expires_at=at(5)))
    one.tick(6)
    assert [fact.task for fact in one.of(TaskCancelled)] == ["late"]


def test_every_term_of_the_score_stands_in_the_plan() -> None:
    found = shares(world(*opened()).context().picture.all.lanes, at(0))
    names = {term.name for term in found[0].terms}
    assert {"staleness", "data deficit", "Elo velocity", "improvement", "training", "exploration", "curriculum",
            "quality penalty", "momentum", "boost"} <= names  # fmt: skip


@any_given(
    st.dictionaries(st.text(min_size=1, max_size=3), st.floats(0.01, 100), min_size=1, max_size=12), st.floats(0.05, 1)
)
def test_shares_add_up_and_keep_the_quota(scores: dict[str, float], quota: float) -> None:
    limit = max(quota, 1 / len(scores))
    found = capped(scores, limit)
    assert sum(found.values()) == pytest.approx(1.0)
    assert max(found.values()) <= limit + 1e-6
