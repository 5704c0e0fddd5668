"""What one scan of the nodes came to is remembered for a second, also for other lanes: nobody loses a free seat by it."""

from __future__ import annotations

from orch_world import World

from selfplay_orch.settings import Settings
from sparring.contracts.health import NodeLost
from sparring.contracts.selfplay_orch import ReportTaskFailed, TaskAssigned
from sparring.decider import Recorded

QUICK = Settings(spawns_per_minute=6_000)


def started(world: World) -> World:
    """All that is assigned runs."""
    for task in world.running():
        if world.picture.all.tasks[task].state == "assigned":
            world.start(task)
    return world


def assigned_since(world: World, log: list[Recorded]) -> list[str]:
    return [one.fact.task for one in world.log[len(log) :] if isinstance(one.fact, TaskAssigned)]


def test_lost_work_gets_the_seat_that_another_lane_was_refused_for_a_reason_of_its_own() -> None:
    """New self-play overtook it: the throttled lane had looked at the free seat on behalf of both."""
    world = World(QUICK).join("n1", seats=4).join("n2", seats=2).lane("a")
    world.plan()
    started(world).lane("b").after(50)
    for node in ("n1", "n2"):
        world.finish(world.running(lane="a", node=node)[0])
    world.plan()
    started(world).after(50).press("a", "training-data", "soft")
    world.tell(NodeLost(node="n2", boot="b1", reason="silent", silent_s=20, limit_s=20))
    world.plan()
    waiting = {
        name: task.spec.lane
        for name, task in world.picture.all.tasks.items()
        if task.state == "requested" and task.spec
    }
    assert sorted(waiting.values()) == ["a", "b"]
    before = list(world.log)
    world.after(0.2).finish(world.running(lane="b", node="n1")[0])
    world.plan()
    assert assigned_since(world, before) == [name for name, lane in waiting.items() if lane == "b"]


def test_a_seat_that_one_task_avoids_is_there_for_another_lanes_at_once() -> None:
    settings = Settings(spawns_per_minute=6_000, retry_s=(10.0,))
    world = World(settings).join("n1", seats=1).join("n2", seats=1).lane("a", enabled=False).lane("b", enabled=False)
    world.request("shy", "export", "a")
    world.plan()
    node = world.start("shy").picture.all.tasks["shy"].node
    for number in range(4):
        world.request(f"f{number}", "export", "c")
    world.plan()
    world.after(2).order(ReportTaskFailed(task="shy", attempt=1, node=node, reason="exit 1"))
    world.request("next", "export", "b").after(1.5).plan()
    started(world.after(30)).plan()
    before = list(world.log)
    world.after(0.3).finish(next(name for name in world.running("export", node=node)))
    world.plan()
    assert assigned_since(world, before) == ["next"]
