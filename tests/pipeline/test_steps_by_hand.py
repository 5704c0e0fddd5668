"""Steps that a lane leaves to people: it waits with that reason, and goes on with the order and nothing else."""

from __future__ import annotations

import pytest
from played_loop import COMMANDS, SHA, TRAINED, Loop, admitted, artifact, lane

from pipeline.core.by_hand import take_step
from pipeline.core.iteration import ITERATION
from pipeline.settings import Settings
from sparring.contracts.lanes import Step
from sparring.contracts.lifecycle import ModelPromoted, ModelRejected, RegisterModel
from sparring.contracts.pipeline import (
    CollectionFinished,
    IterationClosed,
    IterationOpened,
    LaneEdited,
    LanePaused,
    PromotionAwaited,
    QualityRefused,
    StageExtended,
    StageRetried,
    StepOrdered,
    StepRefused,
    TakeStep,
)
from sparring.contracts.training_slots import ClaimSlot
from sparring.invariants import EveryWaitHasADeadline, violations
from sparring.testing import at, given
from sparring.testing.scenario import fold


def taken(step: Step, iteration: str = "hex-1") -> TakeStep:
    return TakeStep(iteration=iteration, step=step, by="anna")


def ordered(loop: Loop, step: Step) -> Loop:
    """The order as the service obeys it on what happened so far."""
    own = [one.fact for one in loop.facts if one.fact.entity == "iteration" and one.fact.id == "hex-1"]
    story = (
        given(ITERATION, *own).when(take_step, taken(step), at(loop.now), settings=Settings()).then_types(StepOrdered)
    )
    loop.add(*story.outcome)
    loop.tick(times=2)
    return loop


def test_each_step_by_hand_waits_for_its_order_and_takes_it_once() -> None:
    loop = Loop(lane(auto=("sync",))).collected()
    loop.tick(times=3)
    assert loop.of(CollectionFinished) == []
    ordered(loop, "export").sealed().exported()
    assert len(loop.of(CollectionFinished)) == 1 and loop.orders(ClaimSlot) == []
    ordered(loop, "train").slot().done("train", "model", TRAINED)
    assert loop.orders(RegisterModel) == []
    ordered(loop, "evaluate")
    assert loop.orders(RegisterModel)[-1].by_hand, "nor does it promote by itself"
    loop.registered().decided("rejected")
    assert [fact.outcome for fact in loop.of(IterationClosed)] == ["rejected"]
    loop.add(admitted("later"))
    loop.tick(times=2)
    assert len(loop.of(CollectionFinished)) == 1, "the next iteration waits for orders of its own"
    assert violations(loop.facts, EveryWaitHasADeadline) == []


def test_an_order_given_early_is_taken_once_there_is_enough() -> None:
    loop = ordered(Loop(lane(auto=("sync",))), "export")
    assert loop.of(CollectionFinished) == []
    loop.collected()
    assert len(loop.of(CollectionFinished)) == 1


def test_a_step_that_was_ordered_has_the_deadline_of_any_other() -> None:
    loop = Loop(lane(auto=("sync", "export", "evaluate"))).collected().sealed().exported()
    loop.tick(86_401)
    assert loop.of(StageRetried) == [] and len(loop.of(StageExtended)) == 1
    ordered(loop, "train")
    loop.tick(86_401)
    assert [fact.stage for fact in loop.of(StageRetried)] == ["training"]
    loop.slot()
    assert len(loop.orders(ClaimSlot)) > 0, "and it is tried again without another order"


def test_after_refused_data_the_export_is_ordered_anew() -> None:
    loop = ordered(Loop(lane(auto=("sync",))).collected(), "export").sealed().exported(coverage=0.5)
    assert len(loop.of(QualityRefused)) == 1
    loop.collected().collected()
    assert len(loop.of(CollectionFinished)) == 1
    assert len(ordered(loop, "export").of(CollectionFinished)) == 2


def test_a_paused_lane_takes_no_step_that_is_ordered() -> None:
    loop = Loop(lane(auto=("sync",))).collected()
    loop.add(LanePaused(lane="hex", revision=1, by="anna", reason=""))
    assert ordered(loop, "export").of(CollectionFinished) == []


@pytest.mark.parametrize("step", ["train", "evaluate", "promote", "sync"])
def test_an_order_for_another_step_than_the_one_that_leads_on_is_refused_with_that_one(step: Step) -> None:
    story = given(ITERATION, *Loop().of(IterationOpened)).when(take_step, taken(step)).then_types(StepRefused)
    (refused,) = story.outcome
    assert isinstance(refused, StepRefused) and "the step that leads on is export" in refused.reason


def test_a_step_without_a_program_is_refused_before_it_fails_the_iteration() -> None:
    """A lane that only plays was told to export, and its iterations failed until its breaker opened."""
    loop = Loop(lane(auto=("sync",), commands={"selfplay": COMMANDS["selfplay"]}))
    story = given(ITERATION, *loop.of(IterationOpened)).when(take_step, taken("export"), picture=loop.context().picture)
    (refused,) = story.then_types(StepRefused).outcome
    assert isinstance(refused, StepRefused) and "commands.export is missing" in refused.reason


def test_whether_a_model_plays_is_not_the_iterations_to_say() -> None:
    own = [one.fact for one in waiting().facts if one.fact.entity == "iteration" and one.fact.id == "hex-1"]
    (refused,) = given(ITERATION, *own).when(take_step, taken("promote")).then_types(StepRefused).outcome
    assert isinstance(refused, StepRefused) and refused.reason.endswith("PromoteModel or RejectModel")


def test_a_closed_iteration_takes_no_step_and_the_same_order_again_changes_nothing() -> None:
    opened = Loop().of(IterationOpened)
    story = given(ITERATION, *opened).when(take_step, taken("export"), settings=Settings()).then_types(StepOrdered)
    story.asked_again_changes_nothing(take_step, taken("export"))
    closed = IterationClosed(iteration="hex-1", lane="hex", outcome="failed", reason="x", games=0, seconds=0)
    given(ITERATION, *opened, closed).when(take_step, taken("export")).then_types(StepRefused)


def waiting() -> Loop:
    loop = Loop(lane(auto=("sync", "export", "train", "evaluate"))).collected().sealed().exported().slot()
    loop = loop.done("train", "model", TRAINED).registered().decided(by_hand=True)
    assert [fact.gate for fact in loop.of(PromotionAwaited)] == ["hex-g1"]
    return loop


def test_a_model_that_passed_waits_for_a_person_for_as_long_as_it_takes() -> None:
    loop = waiting()
    for _ in range(3):
        loop.tick(86_401)
    assert loop.of(IterationClosed) == []
    assert [fact.stage for fact in loop.of(StageExtended)] == ["deciding"] * 3
    assert violations(loop.facts, EveryWaitHasADeadline) == []
    own = [one.fact for one in loop.facts if one.fact.entity == "iteration" and one.fact.id == "hex-1"]
    assert fold(ITERATION, *own).stage == "deciding"


def test_a_lane_that_promotes_by_itself_again_waits_for_lifecycle_to_do_so() -> None:
    loop = waiting()
    loop.add(LaneEdited(lane="hex", spec=lane(), changed=("auto",)))
    loop.tick(86_401)
    assert [fact.stage for fact in loop.of(StageExtended)] == ["deciding"] and loop.of(StageRetried) == []


def test_a_persons_promotion_or_refusal_ends_the_iteration() -> None:
    loop = waiting()
    loop.add(ModelPromoted(lane="hex", model=SHA, number=1, previous="", gate="hex-g1", artifact=artifact("model"),
                           iteration="hex-1", by="anna"))  # fmt: skip
    loop.tick()
    assert [(one.outcome, one.reason) for one in loop.of(IterationClosed)] == [("promoted", "promoted by anna")]
    loop = waiting()
    loop.add(ModelRejected(lane="hex", model=SHA, gate="hex-g1", reason="turned down by anna: x", iteration="hex-1"))
    loop.tick()
    assert [(one.outcome, one.reason) for one in loop.of(IterationClosed)] == [("rejected", "turned down by anna: x")]
    assert loop.of(IterationOpened)[-1].deadline_at == at(loop.now + 7200)
