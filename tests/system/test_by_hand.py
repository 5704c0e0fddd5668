"""A cluster that takes every step by hand: real services, one iteration by `spar step`, to a promotion that a person orders."""

from __future__ import annotations

import json
from pathlib import Path

import cluster

from sparring.contracts.lifecycle import GateDecided, ModelPromoted
from sparring.contracts.pipeline import IterationClosed, StepOrdered
from sparring.invariants import violations


def remedies(one: cluster.Up, lane: str) -> list[str]:
    """What `spar why` tells a person to type."""
    found = json.loads(one.spar("why", lane, "--json", check=False) or "{}")
    return [hold["remedy"].partition(";")[0] for hold in found.get("held_back", ())]


async def test_every_step_waits_for_a_person_who_is_told_how_to_take_it(tmp_path: Path) -> None:
    """Lane a promotes what passes, lane b turns it down; a gate may reject a few before."""
    answers, answered = {"a_2p": "step", "b_2p": "reject"}, set[str]()
    with cluster.up(tmp_path, "--manual") as one:

        def go_on() -> bool:
            for lane, answer in answers.items():
                for remedy in remedies(one, lane) if lane not in answered else ():
                    if "promote" in remedy:
                        answered.add(lane)
                        assert f"spar reject {lane}" in remedy
                        one.spar(answer, lane)
                    else:
                        one.spar(*remedy.split()[1:])
            return answered == set(answers)

        cluster.wait_for(go_on, within_s=150)
        cluster.wait_for(lambda: all([r.split()[-1] for r in remedies(one, lane)] == ["export"] for lane in answers))
    facts = await cluster.facts_of(one.data)
    assert violations(facts) == []
    by_hand = [one.fact for one in facts if isinstance(one.fact, GateDecided) and one.fact.verdict == "passed"]
    assert {fact.lane for fact in by_hand} == set(answers) and all(fact.by_hand for fact in by_hand)
    assert [(one.fact.lane, bool(one.fact.by)) for one in facts if isinstance(one.fact, ModelPromoted)] == [
        ("a_2p", True)
    ]
    closed = [one.fact for one in facts if isinstance(one.fact, IterationClosed)]
    assert [fact.outcome for fact in closed if fact.lane == "a_2p"][-1] == "promoted"
    assert [fact.reason.partition(" by ")[0] for fact in closed if fact.lane == "b_2p"][-1] == "turned down"
    for fact in closed:
        steps = [one.fact.step for one in facts if isinstance(one.fact, StepOrdered) and one.fact.id == fact.id]
        assert steps == ["export", "train", "evaluate"]
