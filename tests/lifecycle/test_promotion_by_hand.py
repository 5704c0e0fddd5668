"""A lane whose `auto` lacks `promote`: what passes its gate waits, and plays only when a person says so."""

from __future__ import annotations

import pytest
from gated_lane import EVEN, LOST, WON, A, B, C, match, order, promoted, told

from lifecycle.core.by_hand import promote, reject
from lifecycle.core.decide import record, register, roll_back
from lifecycle.core.evolve import LANE
from lifecycle.core.plan import ModelsPicture, plan
from lifecycle.core.state import Lane
from lifecycle.settings import Settings
from sparring.contracts.lanes import LaneSpec
from sparring.contracts.lifecycle import (
    CurriculumRebalanced,
    GateDecided,
    GateOpened,
    MatchRecorded,
    MeasurementOpened,
    ModelOrderRefused,
    ModelPromoted,
    ModelRegistered,
    ModelRejected,
    ModelRolledBack,
    PromoteModel,
    RejectModel,
    RollBack,
)
from sparring.contracts.pipeline import LaneEdited, LaneRegistered
from sparring.invariants import violations
from sparring.testing import given
from sparring.testing.scenario import Scenario, fold
from sparring.testing.world import World

GO = PromoteModel(lane="hex", by="anna")


def passed(story: Scenario, model: str, number: int) -> Scenario:
    """The model is registered in a lane that promotes by hand, and passes its gate."""
    asked = order(model, token=10 + number, task=f"t{number}", by_hand=True)
    story = story.when(register, asked).then_types(ModelRegistered, GateOpened)
    story = story.when(record, match(WON, f"hex-g{number}-e1", f"hex-g{number}"))
    return story.then_types(MatchRecorded, GateDecided)


def state(story: Scenario) -> Lane:
    found: Lane = fold(LANE, *told(story))
    return found


def test_what_passes_waits_and_plays_when_a_person_says_so() -> None:
    story = passed(given(LANE), A, 1)
    assert state(story).models[A].state == "passed" and state(story).production == ""
    story = story.when(promote, GO).then_types(ModelPromoted, MeasurementOpened, CurriculumRebalanced)
    plays = story.outcome[0]
    assert isinstance(plays, ModelPromoted) and (plays.model, plays.by, plays.gate) == (A, "anna", "hex-g1")
    story.when(promote, GO).then_types(ModelOrderRefused)


def test_what_fails_is_rejected_without_a_person() -> None:
    story = given(LANE).when(register, order(A, by_hand=True)).then_types(ModelRegistered, GateOpened)
    story = story.when(record, match(LOST)).then_types(MatchRecorded, GateDecided, ModelRejected, CurriculumRebalanced)
    story.when(promote, GO).then_types(ModelOrderRefused)


def test_a_model_that_a_person_turns_down_never_plays() -> None:
    story = passed(given(LANE), A, 1)
    no = RejectModel(lane="hex", by="anna", reason="it resigns too early")
    story = story.when(reject, no).then_types(ModelRejected, CurriculumRebalanced)
    refused = story.outcome[0]
    assert isinstance(refused, ModelRejected) and refused.reason == "turned down by anna: it resigns too early"
    story.when(promote, GO).then_types(ModelOrderRefused)
    assert state(story).elo_steps == (0.0,), "the lane did not become stronger by it"


def test_only_a_model_that_comes_to_play_counts_as_a_step_of_its_lane() -> None:
    story = passed(given(LANE), A, 1)
    assert state(story).elo_steps == ()
    told = story.when(promote, GO).outcome[-1]
    assert isinstance(told, CurriculumRebalanced) and {t.name: t.value for t in told.terms}["verdict"] == -0.1
    assert state(story._told()).elo_steps[0] > 100
    no = RejectModel(lane="hex", by="anna", reason="x")
    down = passed(given(LANE), A, 1).when(reject, no).outcome[-1]
    assert isinstance(down, CurriculumRebalanced) and {t.name: t.value for t in down.terms}["verdict"] == 0.15


def test_an_open_gate_against_the_model_that_a_promotion_replaces_ends() -> None:
    """It passed later, and its candidate was promoted over a model that it had never met."""
    story = passed(promoted(C), A, 2).when(register, order(B, token=13, task="t3"))
    story = story.then_types(ModelRegistered, GateOpened)
    story = story.when(record, match(EVEN, "hex-g3-e1", "hex-g3")).then_types(MatchRecorded)
    story = story.when(promote, GO)
    assert [type(fact) for fact in story.outcome][:4] == [
        GateDecided,
        ModelRejected,
        CurriculumRebalanced,
        ModelPromoted,
    ]
    ended = story.outcome[0]
    assert isinstance(ended, GateDecided) and (ended.verdict, ended.ended_by) == (
        "rejected",
        "another model was promoted",
    )


@pytest.mark.parametrize(("named", "remedy"), [("", "there are 2 models"), ("c", "'c' names 0 models")])
def test_a_name_that_fits_no_or_several_models_is_refused(named: str, remedy: str) -> None:
    story = passed(passed(given(LANE), A, 1), B, 2)
    story = story.when(promote, GO.model_copy(update={"model": named})).then_types(ModelOrderRefused)
    refused = story.outcome[0]
    assert isinstance(refused, ModelOrderRefused) and remedy in refused.reason


def test_who_was_measured_against_what_plays_no_more_is_rejected() -> None:
    """By a promotion of another one, and by a rollback."""
    story = passed(passed(promoted(C), A, 2), B, 3)
    both = story.when(promote, GO.model_copy(update={"model": A[:8]}))
    (last,) = [fact for fact in both.outcome if isinstance(fact, ModelRejected)]
    assert (last.model, last.reason) == (B, "another model was promoted")
    story = passed(promoted(C), A, 2).when(roll_back, RollBack(lane="hex", by="me", reason="worse"))
    story.then_types(ModelRejected, ModelRolledBack)


def test_a_lane_that_promotes_by_itself_again_lets_go_of_the_newest_that_waits() -> None:
    spec = LaneSpec.model_validate({"name": "hex", "game": "hex", "commands": {}, "auto": ("sync",)})
    story = told(passed(passed(given(LANE), A, 1), B, 2))
    world = World(ModelsPicture, plan, Settings(), LaneRegistered(lane="hex", spec=spec), *story)
    world.tick(times=2)
    assert world.of(ModelPromoted) == []
    world.add(LaneEdited(lane="hex", spec=spec.model_copy(update={"auto": ("promote",)}), changed=("auto",)))
    world.tick(times=3)
    assert [fact.model for fact in world.of(ModelPromoted)] == [B]
    assert [fact.model for fact in world.of(ModelRejected)] == [A]
    assert violations(world.facts) == []


def test_a_lane_that_is_left_to_people_during_its_gate_is() -> None:
    spec = LaneSpec.model_validate({"name": "hex", "game": "hex", "commands": {}, "auto": ("sync",)})
    world = World(ModelsPicture, plan, Settings(), LaneRegistered(lane="hex", spec=spec))
    story = given(LANE).when(register, order(A)).then_types(ModelRegistered, GateOpened)
    decided = record(match(WON), state(story), world.context())[1]
    assert isinstance(decided, GateDecided) and decided.by_hand


def test_the_gate_of_a_model_that_waits_is_not_forgotten() -> None:
    story = passed(given(LANE), A, 1)
    for number in range(2, 40):
        story = story.when(register, order(f"{number:064x}", token=20 + number, task=f"t{number}"))._told()
        story = story.when(record, match(LOST, f"hex-g{number}-e1", f"hex-g{number}"))._told()
    story.when(promote, GO).then_types(ModelPromoted, MeasurementOpened, CurriculumRebalanced)
