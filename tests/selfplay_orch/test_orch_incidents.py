"""What went wrong in the predecessor and must not happen here; the numbers are those of incidents.md."""

from __future__ import annotations

import pytest
from hypothesis import given as any_given
from hypothesis import settings as testing
from hypothesis import strategies as st
from orch_world import Stale, World

from selfplay_orch.core.look import Look
from selfplay_orch.core.placement import in_fair_order, overtaking_s
from selfplay_orch.core.plan import plan
from selfplay_orch.settings import KindRules, Settings
from sparring.contracts import health
from sparring.contracts.lanes import GateRules
from sparring.contracts.lifecycle import GateOpened
from sparring.contracts.parts import LEVELS, Level
from sparring.contracts.selfplay_orch import SeatTaken, SpawnAdmitted, TaskAbandoned, TaskCancelled, TaskOrphaned
from sparring.decider import Append, Context
from sparring.testing import at

FAST = Settings(spawns_per_minute=6000, most_a_call=20)


# ---- 4: four processes at a node limit of 32 admitted 35


@testing(deadline=None)
@any_given(st.lists(st.integers(0, 3), min_size=60, max_size=160), st.integers(30, 40))
def test_rule_4_admission_is_decided_on_the_sequence_that_was_read(turns: list[int], seats: int) -> None:
    """Four planners race with stale pictures; each step one of them reads, or appends what it decided on its read."""
    world = World(FAST).join("n1", seats=max(seats, 32)).lane("hex")
    pending: dict[int, list[tuple[Append, dict]]] = {}  # type: ignore[type-arg]
    for turn in turns:
        mine = pending.setdefault(turn, [])
        if not mine:
            actions = [one for one in plan(world.context()) if isinstance(one, Append)]
            mine += [(one, world.read(one)) for one in actions]
            continue
        action, seen = mine.pop(0)
        try:
            world.append(action, seen)
        except Stale:
            world.append(action, world.read(action))
        assert len(world.running("selfplay")) <= 32
    for fact in world.facts(SeatTaken, SpawnAdmitted):
        assert fact.running <= fact.limit
    world.plan()
    assert len(world.running("selfplay")) == 32


def test_rule_4_four_racing_planners_at_limit_32_admit_32() -> None:
    world = World(FAST).join("n1", seats=64).lane("hex")
    for _ in range(10):
        planners = [[one for one in plan(world.context()) if isinstance(one, Append)] for _ in range(4)]
        reads = [[(one, world.read(one)) for one in actions] for actions in planners]
        for action, seen in (pair for four in zip(*reads, strict=True) for pair in four):
            try:
                world.append(action, seen)
            except Stale:
                world.append(action, world.read(action))
    assert len(world.running("selfplay")) == 32


# ---- 7: 20 of 20 nodes critical, cluster back-pressure "none"


@any_given(st.sampled_from(LEVELS), st.sampled_from(LEVELS), st.sampled_from(LEVELS), st.integers(1, 60))
def test_rule_7_worse_input_never_gives_a_milder_level(one: Level, other: Level, second: Level, seats: int) -> None:
    mild, harsh = sorted((one, other), key=LEVELS.index)

    def allowed(level: Level) -> int:
        world = World().join(seats=seats).lane("hex")
        world.press("hex", "training-data", level).press("hex", "pending-games", second)
        return Look(world.context()).most_seats(world.picture.all.lanes["hex"])

    assert allowed(harsh) <= allowed(mild)
    assert allowed("stop") == 0


# ---- 12: waits without a reason and a deadline


def test_rule_12_every_wait_has_a_reason_and_a_deadline() -> None:
    world = World().join(gpus=()).lane("hex").request("t", "train", gpu=True)
    world.plan()
    assert ("train", "GPU") in world.reasons()
    world.after(world.settings.wait_s + 1).plan()
    assert [fact.reason for fact in world.facts(TaskCancelled) if fact.task == "t"] == ["expired"]


def test_rule_12_an_assignment_that_nobody_starts_ends_by_itself() -> None:
    world = World().join().lane("hex", enabled=False).request("t", "export")
    for _ in range(60):
        world.after(30).beat().plan()
        world.after(world.settings.start_s + 1).plan()
    assert {fact.reason for fact in world.facts(TaskOrphaned)} == {"did not start within 120 s"}
    assert [fact.task for fact in world.facts(TaskAbandoned)] == ["t"]
    assert not world.picture.all.tasks


def opened(until: float) -> health.BreakerOpened:
    return health.BreakerOpened(breaker="kind-hex-selfplay", scope="kind", lane="hex", kind="selfplay", failures=5, limit=5,
                                times=1, until=at(until), reason="exit code 1")  # fmt: skip


def test_rule_12_an_open_breaker_lets_one_trial_through_at_its_deadline_even_without_health() -> None:
    world = World().join().lane("hex")
    world.tell(opened(600))
    world.plan()
    assert not world.running() and ("selfplay", "breaker") in world.reasons()
    world.after(601).plan()
    assert len(world.running("selfplay")) == 1, "one trial while it is half-open"


def test_rule_12_a_breaker_that_health_closed_holds_nothing_back() -> None:
    world = World().join().lane("hex")
    world.tell(opened(600))
    world.tell(
        health.BreakerClosed(breaker="kind-hex-selfplay", scope="kind", lane="hex", kind="selfplay", times=1, reason="")
    )
    world.plan()
    assert len(world.running("selfplay")) > 1


@pytest.mark.parametrize("boot", ["b1", "b2"])
def test_a_nodes_breaker_stays_open_when_the_node_rejoins_in_the_same_life(boot: str) -> None:
    """Lost for a moment, it got work again at once; with a new life health closes the breaker."""
    world = World().join().lane("hex")
    world.tell(
        health.BreakerOpened(
            breaker="node-n1", scope="node", node="n1", failures=5, limit=5, times=1, until=at(600), reason="x"
        ),
        health.NodeLost(node="n1", boot="b1", reason="silent", silent_s=20, limit_s=20),
    )
    world.join(boot=boot)
    world.plan()
    assert bool(world.running()) == (boot == "b2")


# ---- 17: a 3600 s timeout on 2-5 h trainings


def test_rule_17_timeouts_leases_and_expected_times_are_checked_when_settings_load() -> None:
    with pytest.raises(ValueError, match=r"kinds\.train\.timeout_s"):
        Settings(kinds={"train": {"timeout_s": 3600}})  # type: ignore[dict-item]
    with pytest.raises(ValueError, match="lease_s"):
        Settings(kinds={"export": KindRules(timeout_s=20, expected_s=10)})
    with pytest.raises(ValueError, match="beat_fresh_s"):
        Settings(beat_fresh_s=30, lease_s=30)
    with pytest.raises(ValueError, match="start_s"):
        Settings(start_s=10)


def test_rule_17_a_kind_given_in_part_keeps_its_other_defaults() -> None:
    settings = Settings.model_validate({"kinds": '{"train": {"per_node": 2}}'})
    assert settings.kind("train").per_node == 2
    assert settings.kind("train").timeout_s == 86_400
    assert settings.kind("distill") == settings.kind("other")


# ---- 18: evaluation and training starved each other; 415 old jobs blocked new candidates


def test_rule_18_a_kind_below_its_reserved_share_goes_before_415_older_jobs() -> None:
    world = World().join("n1", seats=1).lane("hex", enabled=False)
    for number in range(415):
        world.request(f"v{number:03}", "evaluate")
    world.plan()
    world.after(500).request("train", "train")
    assert "train" not in world.running()
    first = world.running("evaluate")[0]
    world.start(first).finish(first)
    world.plan()
    assert "train" in world.running()


def test_rule_18_age_counts_nothing_is_overtaken_by_what_came_later_than_the_bound() -> None:
    world = World().lane("hex")
    kinds = ("tune", "train", "evaluate", "export", "transfer")
    for number in range(200):
        world.after(31).request(f"t{number:03}", kinds[number * 7 % 5])
    look = Look(world.context())
    bound, latest = overtaking_s(look), None
    assert bound == 720
    for _, task in reversed(list(in_fair_order(look))):
        # everything that comes after a task in the order was asked for at most `bound` before it
        assert task.requested_at is not None
        if latest is not None:
            assert (task.requested_at - latest).total_seconds() <= bound
        latest = task.requested_at if latest is None else min(latest, task.requested_at)


def test_rule_18_the_newest_candidate_supersedes_queued_evaluations_of_an_older_gate() -> None:
    world = World().join("n1", seats=1).lane("hex", enabled=False)
    world.tell(gate("hex-g1"))
    for number in range(5):
        world.request(f"old{number}", "evaluate", gate="hex-g1")
    world.request("anchor", "evaluate", gate="hex-a1")
    world.plan()
    runs = world.running("evaluate")
    world.after(5).tell(gate("hex-g2"))
    world.request("fresh", "evaluate", gate="hex-g2")
    world.plan()
    gone = {fact.task for fact in world.facts(TaskCancelled)}
    assert gone == {f"old{number}" for number in range(5)} - set(runs)
    assert not gone & set(runs) and "anchor" not in gone and "fresh" not in gone


def gate(name: str) -> GateOpened:
    return GateOpened(lane="hex", gate=name, candidate="a" * 64, baseline="", iteration="hex-1", rules=GateRules())


def test_plans_are_functions_of_what_they_look_at() -> None:
    world = World().join().lane("hex").request("t", "export")
    ctx: Context = world.context()
    one, two = plan(ctx), plan(ctx)
    assert [type(a) for a in one] == [type(a) for a in two]
