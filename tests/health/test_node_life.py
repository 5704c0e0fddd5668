"""A node's life: who joins, who leaves, and what a person or health itself takes out."""

from __future__ import annotations

from health_world import Watched, heart

from health.core.node import NODE, forget, retire
from sparring.contracts.health import (
    CapacityRetargeted,
    DrainNode,
    ForgetNode,
    NodeDrained,
    NodeDraining,
    NodeForgotten,
    NodeJoined,
    NodeLost,
    NodeOrderRefused,
    NodePreemptionNoticed,
    NodeRecovered,
    NodeRetired,
    NodeSuspected,
    RetireNode,
    ThresholdMoved,
)
from sparring.contracts.node_agent import DrainAgent
from sparring.testing import given


def joined(boot: str = "b1", *, compatible: bool = True) -> NodeJoined:
    return NodeJoined(node="n1", boot=boot, build="1", compatible=compatible, ephemeral=False, tags=(), kinds=(), machine="n1",
                      cores=8, memory_bytes=2**36, gpus=(), seats=4)  # fmt: skip


def test_a_preemption_notice_is_a_state_of_its_own_and_ends_drained() -> None:
    one = Watched()
    one.hears(heart())
    one.tick()
    one.hears(heart(notice="the provider", notice_s=30.0, draining=True, spooled=2))
    one.passes(3)
    assert [(fact.reason, fact.grace_s) for fact in one.of(NodePreemptionNoticed)] == [("the provider", 30.0)]
    assert one.of(NodeDraining, NodeDrained) == []
    one.hears(heart(notice="the provider", draining=True))
    one.passes(2)
    assert len(one.of(NodeDrained)) == 1


def test_an_agent_of_another_build_gets_no_work_where_builds_are_named() -> None:
    one = Watched(builds=("2",))
    one.hears(heart(build="1"))
    one.tick()
    assert [(fact.compatible, "build 1" in fact.misfit) for fact in one.of(NodeJoined)] == [(False, True)]


def test_a_node_whose_messages_fit_again_joins_again_without_a_new_boot() -> None:
    one = Watched()
    one.hears(heart(contracts="newer"))
    one.passes(3)
    one.hears(heart())
    one.passes(3)
    assert [fact.compatible for fact in one.of(NodeJoined)] == [False, True]


def test_a_draining_node_is_told_so_and_drained_when_it_is_empty() -> None:
    one = Watched()
    one.hears(heart())
    one.tick()
    one.add(NodeDraining(node="n1", boot="b1", reason="x", by="me", grace_s=7))
    one.tick(1)
    assert [order.grace_s for order in one.orders(DrainAgent)] == [7]
    one.hears(heart(draining=True))
    one.passes(2)
    assert len(one.of(NodeDrained)) == 1


def test_a_living_node_cannot_be_forgotten_and_a_lost_one_can() -> None:
    order = ForgetNode(node="n1", by="me", reason="gone")
    given(NODE, joined()).when(forget, order).then_types(NodeOrderRefused)
    lost = NodeLost(node="n1", boot="b1", reason="silent", silent_s=20, limit_s=20)
    given(NODE, joined(), lost).when(forget, order).then_types(NodeForgotten).asked_again_changes_nothing(forget, order)


def test_a_retired_node_loses_its_work_at_once_and_returns_only_with_a_new_boot() -> None:
    order = RetireNode(node="n1", by="me", reason="broken")
    given(NODE, joined()).when(retire, order).then_types(NodeLost, NodeRetired).asked_again_changes_nothing(
        retire, order
    )
    one = Watched()
    one.hears(heart())
    one.tick()
    one.add(NodeLost(node="n1", boot="b1", reason="retired", silent_s=0, limit_s=0),
            NodeRetired(node="n1", boot="b1", by="me", reason="broken"))  # fmt: skip
    one.passes(5)
    assert len(one.of(NodeJoined)) == 1
    one.hears(heart(boot="b2"))
    one.passes(2)
    assert len(one.of(NodeJoined)) == 2


def test_an_ephemeral_node_that_is_gone_is_forgotten_after_an_hour_and_another_after_a_day() -> None:
    one = Watched()
    one.hears(heart("spot", ephemeral=True), heart("own"))
    one.tick()
    one.hears()
    one.passes(40, 2)
    one.watch = one.watch.__class__(10_000, 10_000)
    one.tick(3_700)
    one.tick(10, times=2)
    assert [fact.node for fact in one.of(NodeForgotten)] == ["spot"]
    one.tick(90_000)
    one.tick(10, times=2)
    assert [fact.node for fact in one.of(NodeForgotten)] == ["spot", "own"]


def test_an_agent_that_comes_to_a_machine_halves_the_seats_of_the_one_that_was_there() -> None:
    one = Watched()
    one.hears(heart("a", machine="m"))
    one.passes(6)
    one.hears(heart("a", machine="m"), heart("b", machine="m"))
    one.passes(12)
    assert [(fact.node, fact.seats) for fact in one.of(NodeJoined)] == [("a", 4), ("b", 2)]
    assert [(fact.node, fact.before, fact.seats, fact.sharing) for fact in one.of(CapacityRetargeted)] == [
        ("a", 4, 2, 2)
    ]


def test_a_loss_comes_within_25_s_however_far_the_heartbeat_limit_moved() -> None:
    moved = ThresholdMoved(threshold="heartbeat-limit", value=99.0, before=20, least=15, most=25, terms=())
    one = Watched(moved)
    one.hears(heart())
    one.tick()
    for age in range(1, 27):
        one.hears((heart(), float(age)))
        one.tick(1)
    assert [fact.limit_s for fact in one.of(NodeLost)] == [25.0]


def test_losses_that_were_none_raise_the_heartbeat_limit_and_the_watcher_waits_longer() -> None:
    one = Watched()
    one.hears(heart())
    one.tick()
    one.add(*[fact for _ in range(60) for fact in (
        NodeLost(node="n1", boot="b1", reason="silent", silent_s=20, limit_s=20), joined())])  # fmt: skip
    one.tick(1)
    assert [(fact.before, fact.value) for fact in one.of(ThresholdMoved)] == [(20.0, 22.0)]
    one.hears((heart(), 21.0))
    one.tick(1, times=2)
    assert len(one.of(NodeLost)) == 60
    one.hears((heart(), 22.5))
    one.tick(1)
    assert one.of(NodeLost)[-1].limit_s == 22.0


def test_silences_that_end_soon_lower_the_heartbeat_limit_step_by_step_not_below_its_bound() -> None:
    one = Watched()
    one.hears(heart())
    one.tick()
    for _ in range(12):
        one.add(*[fact for _ in range(50) for fact in (
            NodeSuspected(node="n1", boot="b1", silent_s=10, limit_s=10), NodeRecovered(node="n1", boot="b1", silent_s=11))])  # fmt: skip
        one.tick(61)
    values = [fact.value for fact in one.of(ThresholdMoved)]
    assert values == sorted(values, reverse=True) and values[0] == 19.0 and values[-1] == 15.0


def test_a_machine_room_that_joins_is_few_appends() -> None:
    one = Watched()
    one.hears(*(heart(f"n{n}", machine=f"m{n}") for n in range(200)))
    from health.core.plan import plan

    assert len([a for a in plan(one.context()) if hasattr(a, "entities") and a.entities[0][0] is NODE]) == 4


def test_draining_by_hand_reaches_a_preempted_node_too() -> None:
    from health.core.node import drain

    noticed = NodePreemptionNoticed(node="n1", boot="b1", reason="x", grace_s=5)
    given(NODE, joined(), noticed).when(drain, DrainNode(node="n1", by="me", reason="")).then_types(NodeDraining)
