"""What needs a person is said although nothing fails: no node, a service that is deaf, data that nobody can use."""

from __future__ import annotations

import pytest
from health_world import Watched, heart, lane, service

from sparring.contracts.base import Fact
from sparring.contracts.health import AlarmCleared, AlarmRaised
from sparring.contracts.lanes import GateRules
from sparring.contracts.lifecycle import GateDecided, ModelRejected
from sparring.contracts.parts import Check
from sparring.contracts.pipeline import LaneRegistered
from sparring.contracts.sync import BatchAdmitted, BatchLost, BatchQuarantined
from sparring.decider import Reading


def raised(one: Watched, alarm: str) -> list[AlarmRaised]:
    return [fact for fact in one.of(AlarmRaised) if fact.alarm.startswith(alarm)]


def test_lanes_without_a_node_are_an_alarm_that_ends_when_one_comes() -> None:
    one = Watched(lane())
    one.passes(50, 10)
    assert not raised(one, "no-nodes"), "agents come within the first minute"
    one.passes(30, 10)
    (alarm,) = raised(one, "no-nodes")
    assert "none has joined" in alarm.text and "spar agent" in alarm.remedy
    one.hears(heart())
    one.passes(20, 10)
    assert [fact.alarm for fact in one.of(AlarmCleared)].count("no-nodes") == 1


def test_a_fleet_that_is_lost_and_forgotten_stays_an_alarm() -> None:
    one = Watched(lane())
    one.hears(heart(ephemeral=True))
    one.tick(1)
    one.hears()
    one.passes(4_000, 10)
    assert raised(one, "no-nodes") and "no-nodes" not in [fact.alarm for fact in one.of(AlarmCleared)]


def test_a_replica_that_takes_in_no_facts_says_why() -> None:
    one = Watched(lane())
    one.hears(heart())
    beat = service("sync", stuck="disk full: the tables stand still")
    one.readings = {**one.readings, "tel.svc-sync-1.heartbeat": Reading(beat, 1.0)}
    one.tick(1)
    (alarm,) = raised(one, "stuck-sync")
    assert "disk full" in alarm.text and "sync" in alarm.remedy


@pytest.mark.parametrize(("bad", "good", "loud"), [(2, 8, True), (1, 9, False), (5, 3, False)])
def test_a_lane_whose_games_nobody_can_use_is_an_alarm(bad: int, good: int, loud: bool) -> None:
    facts: list[Fact] = [
        BatchQuarantined(batch=f"q{n}", lane="hex", games=10, reason="NaN in the policy") for n in range(bad - 1)
    ]
    facts.append(BatchLost(batch="l", lane="hex", games=10, proof="its node is gone"))
    facts += [
        BatchAdmitted(batch=f"a{n}", lane="hex", games=1, positions=9, model="", sha256=f"{n:064}", url="u",
                      check=Check(ok=True)) for n in range(good)
    ]  # fmt: skip
    one = Watched(lane(), *facts)
    one.hears(heart())
    one.tick(1)
    found = raised(one, "unusable")
    assert bool(found) == loud
    if loud:
        assert "2 of its last 10" in found[0].text and "its node is gone" in found[0].text


def test_a_model_that_waits_for_a_person_is_an_alarm_until_he_has_said_yes_or_no() -> None:
    by_hand = lane().spec.model_copy(update={"auto": ("sync",)})
    passed = GateDecided(lane="hex", gate="hex-g1", candidate="a" * 64, baseline="", iteration="hex-1", verdict="passed",
                         reason="accepted_h1", counts=(0, 0, 1, 2, 3), statistics=None, rules=GateRules(), policy="p",
                         settings_hash="s", by_hand=True)  # fmt: skip
    one = Watched(LaneRegistered(lane="hex", spec=by_hand), passed)
    one.hears(heart())
    one.passes(2)
    (alarm,) = raised(one, "promote-hex")
    assert "spar step hex promote, or spar reject hex" in alarm.remedy
    one.add(ModelRejected(lane="hex", model="a" * 64, gate="hex-g1", reason="x", iteration="hex-1"))
    one.passes(2)
    assert "promote-hex" in {fact.alarm for fact in one.of(AlarmCleared)}
