"""Nodes by their beats, queues by their depth, alarms once a cause: with a watcher that may itself be deaf."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given as any_given
from hypothesis import strategies as st

from health.core.capacity import Controller
from health.core.letter import LETTER, delay_s, discard, fingerprint, record, redrive, report
from health.core.picture import HealthPicture
from health.core.plan import plan
from health.core.pressure import Limits, level_of, next_level, rank
from health.core.redriving import due
from health.core.seats import class_seats
from health.core.switch import CLUSTER, switch
from health.settings import Settings
from sparring.contracts import fingerprint as contracts
from sparring.contracts.base import Fact
from sparring.contracts.health import (
    AlarmCleared,
    AlarmRaised,
    BackpressureChanged,
    ClusterSwitched,
    DeadLetterAbandoned,
    DeadLetterDiscarded,
    DeadLetterFailedAgain,
    DeadLetterOrderRefused,
    DeadLetterRecorded,
    DeadLetterRecovered,
    DeadLetterRedriven,
    DiscardDeadLetter,
    NodeJoined,
    NodeLost,
    NodeRecovered,
    NodeSuspected,
    ObservationLost,
    RecordDeadLetter,
    RedriveDeadLetter,
    ReportRedriven,
    SwitchCluster,
    SwitchRefused,
)
from sparring.contracts.lanes import LaneSpec
from sparring.contracts.parts import LEVELS, Check
from sparring.contracts.pipeline import LaneRegistered
from sparring.contracts.readings import Gpu, Heartbeat, Resources
from sparring.contracts.sync import BatchAdmitted
from sparring.decider import Reading, Watch
from sparring.testing import at, given
from sparring.testing.world import World


def heart(node: str = "n1", boot: str = "b1", disk: int = 2**40, **more: object) -> Heartbeat:
    resources = Resources(cores=8, cpu_share=0.7, foreign_cpu_share=0, memory_total_bytes=2**36,
                          memory_available_bytes=2**36, disk_free_bytes=disk, disk_total_bytes=2**41)  # fmt: skip
    values: dict[str, object] = {
        "node": node,
        "boot": boot,
        "build": "1",
        "contracts": contracts(),
        "resources": resources,
    }
    return Heartbeat.model_validate(values | more)


def world(*facts: Fact) -> World:
    return World(HealthPicture, plan, Settings(), *facts)


def hears(one: World, *beats: tuple[Heartbeat, float]) -> None:
    one.readings = {f"tel.{beat.node}.heartbeat": Reading(beat, age_s) for beat, age_s in beats}


def test_a_first_beat_joins_the_node_once() -> None:
    one = world()
    hears(one, (heart(), 1))
    one.tick(times=3)
    assert [fact.seats for fact in one.of(NodeJoined)] == [4]


def test_silence_is_suspicion_after_10_s_and_loss_after_20() -> None:
    one = world()
    hears(one, (heart(), 1))
    one.tick()
    hears(one, (heart(), 11))
    one.tick(11)
    assert len(one.of(NodeSuspected)) == 1
    hears(one, (heart(), 1))
    one.tick(1)
    assert len(one.of(NodeRecovered)) == 1
    hears(one, (heart(), 21))
    one.tick(21, times=2)
    assert [fact.reason for fact in one.of(NodeLost)] == ["silent"]


def test_a_new_boot_ends_what_the_old_one_ran() -> None:
    one = world()
    hears(one, (heart(), 1))
    one.tick()
    hears(one, (heart(boot="b2"), 1))
    one.tick(times=2)
    assert [type(f).__name__ for f in one.of(NodeJoined, NodeLost)] == ["NodeJoined", "NodeLost", "NodeJoined"]


def test_a_watcher_that_was_cut_off_accuses_nobody() -> None:
    one = world()
    hears(one, (heart(), 1))
    one.tick()
    hears(one, (heart(), 90))
    one.watch = Watch(connected_s=3, started_s=500)
    one.tick(90)
    assert one.of(NodeSuspected, NodeLost) == []


def fallen_silent(silent: int, of: int, for_s: float) -> World:
    """A world in which the first nodes of so many were not heard for so long."""
    one = world()
    hears(one, *((heart(f"n{n}", machine=f"m{n}"), 1) for n in range(of)))
    one.tick()
    hears(one, *((heart(f"n{n}", machine=f"m{n}"), for_s if n < silent else 1) for n in range(of)))
    one.tick(for_s, times=3)
    return one


def test_many_silent_at_once_are_the_watchers_fault() -> None:
    one = fallen_silent(4, of=10, for_s=25)
    assert len(one.of(ObservationLost)) == 1
    assert one.of(NodeLost) == []
    one.tick(130, times=2)
    assert len(one.of(NodeLost)) == 4


def test_one_silent_node_of_three_is_its_own_trouble() -> None:
    one = fallen_silent(1, of=3, for_s=31)
    assert one.of(ObservationLost) == []
    assert [fact.node for fact in one.of(NodeLost)] == ["n0"]


def test_an_agent_with_other_messages_joins_as_incompatible() -> None:
    one = world()
    hears(one, (heart(contracts="other"), 1))
    one.tick()
    assert [fact.compatible for fact in one.of(NodeJoined)] == [False]


def test_agents_of_one_machine_share_its_seats() -> None:
    assert class_seats(heart(), sharing=2) == 2
    assert class_seats(heart(), sharing=100) == 1
    card = Gpu(name="NVIDIA H100 80GB", utilisation=0, memory_used_bytes=0, memory_total_bytes=1, temperature_c=30)
    gpu = heart().model_copy(update={"resources": heart().resources.model_copy(update={"gpus": (card,)})})
    assert class_seats(gpu) == 24


@any_given(st.lists(st.floats(0, 1), min_size=1, max_size=60), st.integers(1, 32))
def test_a_controller_never_leaves_its_band(loads: list[float], most: int) -> None:
    controller, seats = Controller(float(most)), most
    for load in loads:
        controller = controller.step(load, 1, 2 * most)
        seats = controller.seats(seats, load, 1, 2 * most)
        assert 1 <= seats <= 2 * most


def test_a_full_machine_loses_seats_and_an_idle_one_gains_some() -> None:
    busy = idle = Controller(8.0)
    for _ in range(20):
        busy, idle = busy.step(1.0, 1, 16), idle.step(0.1, 1, 16)
    assert busy.seats(8, 1.0, 1, 16) < 8 < idle.seats(8, 0.1, 1, 16)


DEPTHS = st.floats(0, 1_000_000)


@any_given(DEPTHS, DEPTHS, st.sampled_from(LEVELS))
def test_worse_input_never_gives_a_milder_level(one: float, other: float, before) -> None:  # type: ignore[no-untyped-def]
    limits = Limits(1_000, 5_000)
    low, high = sorted((one, other))
    assert rank(level_of(high, limits)) >= rank(level_of(low, limits))
    assert rank(next_level(high, limits, before)) >= rank(next_level(low, limits, before))


def test_a_level_is_left_10_percent_below_where_it_was_entered() -> None:
    limits = Limits(1_000, 5_000)
    assert next_level(1_000, limits, "none") == "soft"
    assert next_level(950, limits, "soft") == "soft"
    assert next_level(899, limits, "soft") == "none"
    assert next_level(5_000, limits, "none") == "stop"


def lane() -> LaneRegistered:
    spec = {"name": "hex", "game": "hex", "commands": {"selfplay": ("x", "{job}", "{out}")},
            "backpressure": {"training_data_positions_soft": 100, "training_data_positions_hard": 200}}  # fmt: skip
    return LaneRegistered(lane="hex", spec=LaneSpec.model_validate(spec))


def test_untrained_data_presses_on_self_play() -> None:
    admitted = BatchAdmitted(
        batch="b", lane="hex", games=10, positions=150, model="", sha256="a" * 64, url="u", check=Check(ok=True)
    )
    one = world(lane(), admitted)
    one.tick(times=2)
    assert [(fact.name, fact.level, fact.depth) for fact in one.of(BackpressureChanged)] == [
        ("training-data", "soft", 150)
    ]


def test_a_nearly_full_disk_stops_self_play_and_raises_one_alarm() -> None:
    one = world(lane())
    hears(one, (heart(disk=10), 1))
    one.tick(times=3)
    assert [(fact.name, fact.level) for fact in one.of(BackpressureChanged)] == [("nodes", "stop")]
    assert len([fact for fact in one.of(AlarmRaised) if fact.alarm.startswith("disk")]) == 1
    hears(one, (heart(), 1))
    one.tick(times=2)
    assert [fact.alarm for fact in one.of(AlarmCleared)] == ["disk-n1"]


def test_an_older_switch_is_refused() -> None:
    story = given(CLUSTER, ClusterSwitched(state="paused", before="running", revision=5, by="me", reason=""))
    story.when(switch, SwitchCluster(state="running", revision=4, by="you")).then_types(SwitchRefused)
    story.when(switch, SwitchCluster(state="running", revision=6, by="you")).then_types(ClusterSwitched)


LETTER_ORDER = RecordDeadLetter(letter="c-S-1", consumer="c", stream="S", stream_sequence=1, subject="s", message_type="m",
                                cause="terminated", transient=True, reason="r", exception="E", fingerprint="f", deliveries=5,
                                trace="")  # fmt: skip


def recorded(number: int = 1, *, transient: bool = True) -> DeadLetterRecorded:
    order = LETTER_ORDER.model_copy(update={"letter": f"c-S-{number}", "transient": transient})
    return DeadLetterRecorded(**order.model_dump(), due_at=at(60) if transient else None)


def test_a_letter_is_recorded_once_and_due_after_a_minute() -> None:
    given(LETTER).when(record, LETTER_ORDER).then(recorded()).asked_again_changes_nothing(record, LETTER_ORDER)


def test_permanent_letters_wait_for_a_person() -> None:
    one = world(recorded(transient=False))
    one.tick(10_000, times=2)
    assert one.of(DeadLetterRedriven) == []


def test_a_letter_that_fails_again_waits_longer_and_is_abandoned_after_five() -> None:
    story = given(LETTER, recorded())
    for attempt in range(1, 6):
        story = story.when(redrive, RedriveDeadLetter(letter="c-S-1", by="me")).then_types(DeadLetterRedriven)
        expected = [DeadLetterFailedAgain] if attempt < 5 else [DeadLetterFailedAgain, DeadLetterAbandoned]
        again = ReportRedriven(letter="c-S-1", attempt=attempt, recovered=False, reason="still")
        story = story.when(report, again).then_types(*expected).asked_again_changes_nothing(report, again)


def test_a_recovered_letter_is_redriven_only_with_force() -> None:
    story = given(LETTER, recorded(), DeadLetterRedriven(letter="c-S-1", by="me", attempt=1, due_at=None))
    story = story.when(report, ReportRedriven(letter="c-S-1", attempt=1, recovered=True)).then_types(
        DeadLetterRecovered
    )
    story.when(redrive, RedriveDeadLetter(letter="c-S-1", by="me")).then_types(DeadLetterOrderRefused)
    story.when(discard, DiscardDeadLetter(letter="c-S-1", by="me", reason="x")).then_types(DeadLetterOrderRefused)


def test_a_discard_is_a_fact() -> None:
    story = given(LETTER, recorded()).when(discard, DiscardDeadLetter(letter="c-S-1", by="me", reason="x"))
    story.then_types(DeadLetterDiscarded)


def test_delays_double_up_to_an_hour() -> None:
    assert [delay_s(n) for n in (0, 1, 2, 10)] == [60, 120, 240, 3600]
    state = LETTER.evolve(LETTER.initial, world(recorded()).facts[0])
    assert due("c-S-1", state, at(59), set()) == []
    assert due("c-S-1", state, at(0) + timedelta(seconds=60), set())


def test_letters_of_one_cause_have_one_fingerprint() -> None:
    one = fingerprint("c", "Undecodable", "batch hex-12-1 holds 0123456789abcdef")
    assert one == fingerprint("c", "Undecodable", "batch hex-99-2 holds fedcba9876543210")
    assert one != fingerprint("other", "Undecodable", "batch hex-12-1 holds 0123456789abcdef")


def test_loss_must_come_after_suspicion_when_settings_load() -> None:
    with pytest.raises(ValueError, match="lost_s"):
        Settings(suspect_s=20, lost_s=15)
