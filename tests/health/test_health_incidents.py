"""Rows 7, 8 and 12 of what went wrong, as rules: over depths, over remembered levels, over nodes, over waits."""

from __future__ import annotations

from datetime import timedelta

import pytest
from health_world import Watched, failed, heart, lane
from hypothesis import given as any_given
from hypothesis import settings
from hypothesis import strategies as st

from health.core.pressure import CRITICAL_NODES, EVALUATION, EXPORT, PROMOTION, SYNC, Limits, next_level, rank
from sparring.contracts.health import (
    AlarmRaised,
    BackpressureChanged,
    BreakerOpened,
    HealthScored,
    NodeForgotten,
    NodeLost,
    NodeRetired,
)
from sparring.contracts.parts import DRAINED_BY, FACTORS, LEVELS, THROTTLED_BY, Check
from sparring.contracts.pipeline import IterationOpened
from sparring.contracts.sync import BatchAdmitted, DatasetSealed, GamesRecorded, TransferFailed
from sparring.testing import at

LIMITS = st.sampled_from(
    (SYNC, EVALUATION, PROMOTION, EXPORT, CRITICAL_NODES, Limits(100_000, 500_000, 50_000), Limits(10, 10))
)
PATHS = st.lists(st.floats(0, 1.2), min_size=1, max_size=30)


def rest(limits: Limits, path: list[float], before: str = "none") -> str:
    for share in path:
        before = next_level(share * limits.hard, limits, before)  # type: ignore[arg-type]
    return before


@any_given(LIMITS, PATHS, st.lists(st.floats(0, 0.5), min_size=30, max_size=30), st.sampled_from(LEVELS))
def test_rule_07_worse_input_all_along_never_ends_in_a_milder_level(
    limits: Limits, path: list[float], more: list[float], before: str
) -> None:
    worse = [depth + extra for depth, extra in zip(path, more, strict=False)]
    assert rank(rest(limits, worse, before)) >= rank(rest(limits, path, before))  # type: ignore[arg-type]


@any_given(LIMITS, st.floats(0, 2), st.sampled_from(LEVELS), st.sampled_from(LEVELS))
def test_rule_07_a_stricter_level_before_never_leads_to_a_milder_one_after(
    limits: Limits, share: float, one: str, other: str
) -> None:
    mild, strict = sorted((one, other), key=rank)  # type: ignore[arg-type]
    depth = share * limits.hard
    assert rank(next_level(depth, limits, strict)) >= rank(next_level(depth, limits, mild))  # type: ignore[arg-type]


def test_rule_07_levels_and_factors_have_one_order() -> None:
    factors = [FACTORS[level] for level in LEVELS]
    assert factors == sorted(factors, reverse=True) and [rank(level) for level in LEVELS] == [0, 1, 2, 3]
    # as strings the order would be another one
    assert sorted(LEVELS) != list(LEVELS)


def pressed_by(critical: int, of: int = 20, before: int = 0) -> str:
    one = Watched(lane())
    for bad in dict.fromkeys((before, critical)):
        one.hears(*(heart(f"n{n}", disk=10 if n < bad else 2**40, machine=f"m{n}") for n in range(of)))
        one.passes(4)
    changed = [fact for fact in one.of(BackpressureChanged) if fact.name == "nodes"]
    return changed[-1].level if changed else "none"


def test_rule_07_twenty_of_twenty_critical_nodes_stop_every_lane() -> None:
    assert pressed_by(20) == "stop"
    one = Watched(lane("a"), lane("b"))
    one.hears(*(heart(f"n{n}", disk=10, machine=f"m{n}") for n in range(20)))
    one.passes(4)
    assert [(fact.lane, fact.level, fact.factor) for fact in one.of(BackpressureChanged)] == [("*", "stop", 0.0)]


@settings(deadline=None, max_examples=15)
@any_given(st.integers(0, 20), st.integers(0, 20), st.integers(0, 20))
def test_rule_07_more_critical_nodes_never_give_a_milder_level(one: int, other: int, before: int) -> None:
    few, many = sorted((one, other))
    assert rank(pressed_by(many, before=before)) >= rank(pressed_by(few, before=before))  # type: ignore[arg-type]


def test_rule_07_nodes_of_which_nothing_recent_is_known_keep_the_level_and_are_reported() -> None:
    one = Watched(lane(), lost_s=25.0)
    nodes = [heart(f"n{n}", disk=10, machine=f"m{n}") for n in range(4)]
    one.hears(*nodes)
    one.passes(4)
    one.watch = one.watch.__class__(1.0, 500.0)
    one.hears(*((node, 130.0) for node in nodes))
    one.passes(4)
    assert [fact.level for fact in one.of(BackpressureChanged)] == ["stop"]
    assert one.of(NodeLost) == []
    stale = [fact for fact in one.of(AlarmRaised) if fact.alarm == "stale-readings"]
    assert len(stale) == 1 and "4 nodes are older than 120 s" in stale[0].text


def test_rule_08_what_drains_a_queue_is_never_throttled_by_it() -> None:
    for queue, drains in DRAINED_BY.items():
        for kind in drains:
            assert queue not in THROTTLED_BY.get(kind, ())
    assert "sync" not in THROTTLED_BY and "sync" not in {queue for queues in THROTTLED_BY.values() for queue in queues}


def recorded(batch: str) -> GamesRecorded:
    return GamesRecorded(batch=batch, lane="hex", task=batch, attempt=1, node="n1", model="", sha256="a" * 64, bytes=1,
                         games=1, positions=1, check=Check(ok=True))  # fmt: skip


def test_rule_08_six_hundred_unsynced_batches_press_on_nothing_that_brings_them_in() -> None:
    one = Watched(lane(), *(recorded(f"b{n}") for n in range(600)))
    one.hears(heart())
    one.passes(2)
    changed = {fact.name: fact.level for fact in one.of(BackpressureChanged)}
    assert changed == {"sync": "stop"}
    assert not any("sync" in queues for queues in THROTTLED_BY.values())


def test_rule_08_a_failed_transfer_leaves_the_queue_as_deep_as_it_was() -> None:
    one = Watched(lane(), *(recorded(f"b{n}") for n in range(120)))
    one.add(*(TransferFailed(batch=f"b{n}", grant=1, reason="refused") for n in range(120)))
    one.hears(heart())
    one.passes(3)
    assert [(fact.depth, fact.level) for fact in one.of(BackpressureChanged) if fact.name == "sync"] == [
        (120.0, "soft")
    ]


@pytest.mark.parametrize("ending", ["lost", "retired", "forgotten"])
def test_rule_08_games_on_a_node_that_is_gone_do_not_stop_the_lanes_self_play(ending: str) -> None:
    """Nothing but the node brings them, and only after a day they count as lost: self-play stood still as long."""
    one = Watched(lane(), recorded("old").model_copy(update={"games": 20_000}))
    one.hears(heart("n1"), heart("n2"), heart("n3"), heart("n4"))
    one.passes(400, 10)
    assert level(one) == "stop"
    if ending == "retired":
        one.add(NodeRetired(node="n1", boot="b1", by="me", reason="broken"))
    else:
        one.add(NodeLost(node="n1", boot="b1", reason="silent", silent_s=20, limit_s=20))
        one.hears(heart("n2"), heart("n3"), heart("n4"))
    if ending == "forgotten":
        one.add(NodeForgotten(node="n1", by="me", reason="sold"))
    one.passes(3)
    assert level(one) == "none"
    if ending != "forgotten":
        one.hears(*(heart(name, boot="b2" if name == "n1" else "b1") for name in ("n1", "n2", "n3", "n4")))
        one.passes(3)
        assert level(one) == "stop", "the node is there again, and so are its games"


def level(one: Watched) -> str:
    return [fact.level for fact in one.of(BackpressureChanged) if fact.name == "pending-games"][-1]


def test_rule_08_data_that_export_took_frees_self_play() -> None:
    admitted = BatchAdmitted(batch="b", lane="hex", games=1, positions=250, model="", sha256="a" * 64, url="u",
                             check=Check(ok=True))  # fmt: skip
    one = Watched(lane(training_data_positions_soft=100, training_data_positions_hard=200), admitted)
    one.hears(heart())
    one.passes(2)
    one.add(DatasetSealed(iteration="hex-1", lane="hex", dataset="b" * 64, batches=(), games=1, positions=250, new_games=1,
                          new_positions=250))  # fmt: skip
    one.passes(2)
    levels = [(fact.level, fact.target) for fact in one.of(BackpressureChanged) if fact.name == "training-data"]
    assert levels == [("stop", 50.0), ("none", 50.0)]


def test_rule_12_a_wait_past_its_deadline_is_an_alarm_with_its_remedy() -> None:
    opened = IterationOpened(iteration="hex-1", lane="hex", number=1, min_positions=1, min_new_games=1, games_before=0,
                             positions_before=0, deadline_at=at(100))  # fmt: skip
    one = Watched(lane(), opened)
    one.hears(heart())
    one.passes(120, 10)
    assert not any(fact.alarm.startswith("overdue") for fact in one.of(AlarmRaised))
    one.passes(60, 10)
    overdue = [fact for fact in one.of(AlarmRaised) if fact.alarm.startswith("overdue")]
    assert [(fact.about, fact.remedy, fact.since is not None) for fact in overdue] == [("hex", "spar why hex", True)]


def test_rule_12_every_open_breaker_says_until_when() -> None:
    one = Watched(lane())
    one.hears(heart())
    one.tick()
    one.add(*(failed(f"t{n}") for n in range(5)))
    one.tick(1)
    (opened,) = one.of(BreakerOpened)
    assert at(one.now) < opened.until <= at(one.now) + timedelta(seconds=66)


def test_rule_12_nothing_known_is_not_the_worst_score() -> None:
    one = Watched()
    one.passes(1)
    assert [fact.grade for fact in one.of(HealthScored)] == ["healthy"]


def test_rule_12_one_cause_is_one_alarm_an_hour_and_cleared_when_it_is_gone() -> None:
    one = Watched()
    one.hears(heart(), silent=("sync",))
    one.watch = one.watch.__class__(50_000, 50_000)
    one.passes(3_500, 100)
    alarms = [fact for fact in one.of(AlarmRaised) if fact.about == "sync"]
    assert [fact.times for fact in alarms] == [1]
    one.passes(400, 100)
    alarms = [fact for fact in one.of(AlarmRaised) if fact.about == "sync"]
    assert [fact.times for fact in alarms] == [1, 2]
    assert alarms[0].since == alarms[1].since and alarms[0].remedy and alarms[0].whose


def test_settings_that_contradict_each_other_do_not_load() -> None:
    from health.settings import Settings

    for wrong in ({"resume_at": 0.3}, {"breaker_most_s": 5}, {"webhook_url": "host/x"}, {"lost_s": 26}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Settings.model_validate(wrong)
