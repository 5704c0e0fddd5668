"""The planner's index is the picture: whatever happened, it equals one that is built anew."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis import given as any_given
from hypothesis import strategies as st
from orch_world import World

from selfplay_orch.core.index import Index, indexed
from selfplay_orch.settings import Settings
from sparring.contracts.health import NodeLost
from sparring.contracts.selfplay_orch import ReportTaskFailed

FAST = Settings(spawns_per_minute=6000, most_a_call=20)
STEPS = st.lists(st.tuples(st.sampled_from(["plan", "finish", "fail", "lose", "join", "ask", "wait"]), st.integers(0, 7)),
                 max_size=40)  # fmt: skip


def plain(index: Index) -> dict[str, object]:
    return {
        "taken": {node: seats for node, seats in index.taken.items() if seats},
        "alive": index.alive,
        "running": +index.running,
        "lanes": +index.lane_seats,
        "waiting": set(index.waiting),
        "queues": index.queues,
        "usable": index.usable,
        "seats": index.seats,
        "states": +index.states,
        "by load": {card: one.ordered for card, one in index.by_load.items()},
        "gone": {kind: set(seats) for kind, seats in index.gone.items() if seats},
    }


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.too_slow])
@any_given(STEPS)
def test_the_index_equals_one_that_is_built_anew(steps: list[tuple[str, int]]) -> None:
    world = World(FAST).join("n0", seats=3).join("n1", seats=2, gpus=("H100",)).lane("hex").lane("dots")
    for what, number in steps:
        running = world.running()
        match what:
            case "plan":
                world.plan()
            case "finish" if running:
                world.finish(running[number % len(running)])
            case "fail" if running:
                task = world.picture.all.tasks[running[number % len(running)]]
                name = running[number % len(running)]
                world.order(ReportTaskFailed(task=name, attempt=task.attempt, node=task.node, reason="exit code 1"))
            case "lose":
                world.tell(NodeLost(node=f"n{number % 2}", boot="b1", reason="silent", silent_s=20, limit_s=20))
            case "join":
                world.join(f"n{number % 3}", seats=1 + number % 4, boot=f"b{number}")
            case "ask":
                world.request(f"t{len(world.log)}", ("export", "evaluate", "tune")[number % 3])
            case "wait":
                world.after(number * 7.0)
        anew = indexed(world.picture.all.tasks, world.picture.all.nodes, world.picture.all.quotas)
        assert plain(world.picture.index) == plain(anew)


def test_a_call_costs_what_it_places_not_what_there_is() -> None:
    """With a thousand full nodes a call asks none of them again."""
    world = World(Settings(spawns_per_minute=100_000, most_a_call=2_000)).lane("hex")
    for number in range(1_000):
        world.join(f"n{number}", seats=1)
    world.plan()
    assert len(world.running("selfplay")) == 1_000
    assert world.picture.index.open.ordered == []
    world.finish(world.running()[17])
    assert len(world.picture.index.open.ordered) == 1
    world.plan()
    assert len(world.running("selfplay")) == 1_000
