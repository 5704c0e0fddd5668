"""A lane's iteration from collecting to closing, and every way in which it could stand still."""

from __future__ import annotations

from pathlib import Path

import pytest
from played_loop import COMMANDS, SHA, TRAINED, Loop, admitted, artifact, lane

from pipeline.core import plan as plans
from pipeline.core.lane import LANE, pause, register, resume
from pipeline.core.plan import plan
from pipeline.core.quality import good_enough, quality
from pipeline.core.stage import Look
from pipeline.settings import Settings
from sparring.contracts.lanes import QualityRules
from sparring.contracts.lifecycle import CloseGate, Lineage, ModelRefused, RegisterModel
from sparring.contracts.pipeline import (
    CollectionFinished,
    EvaluationStarted,
    ExportFinished,
    ExportStarted,
    IterationClosed,
    IterationOpened,
    LaneEdited,
    LaneOrderRefused,
    LanePaused,
    LaneRegistered,
    LaneResumed,
    PauseLane,
    QualityRefused,
    RegisterLane,
    ResumeLane,
    StageExtended,
    StageRetried,
    TrainingFinished,
    TrainingInterrupted,
    TrainingStarted,
)
from sparring.contracts.selfplay_orch import (
    CancelTask,
    RequestTask,
    TaskAbandoned,
    TaskFailed,
    TaskFinished,
    TaskRequested,
    TaskStarted,
)
from sparring.contracts.sync import DatasetRefused, SealDataset
from sparring.contracts.training_slots import (
    ClaimSlot,
    HoldLaneBack,
    PreemptionAsked,
    ReleaseSlot,
    RenewSlot,
    SlotClaimed,
    SlotExpired,
)
from sparring.decider import Action, Send
from sparring.errors import BadInput
from sparring.invariants import EveryWaitHasADeadline, violations
from sparring.lane_file import load_lanes
from sparring.task_specs import task_spec
from sparring.testing import at, given


def test_an_iteration_goes_from_collecting_to_the_next_one() -> None:
    loop = Loop().collected().sealed().exported().slot().done("train", "model", TRAINED).registered().decided()
    assert [(fact.outcome, fact.model) for fact in loop.of(IterationClosed)] == [("promoted", SHA)]
    assert [fact.number for fact in loop.of(IterationOpened)] == [1, 2]
    assert loop.of(IterationOpened)[-1].games_before == 10
    assert violations(loop.facts, EveryWaitHasADeadline) == []
    assert len(loop.orders(ReleaseSlot)) == 1


def test_the_fencing_token_travels_from_the_claim_to_the_registration() -> None:
    loop = Loop().collected().sealed().exported().slot()
    token = next(one.sequence for one in loop.facts if isinstance(one.fact, SlotClaimed))
    train = [one for one in loop.orders(RequestTask) if one.spec.kind == "train"][-1]
    assert train.spec.slot_token == token
    assert train.spec.exclusive
    loop.done("train", "model", TRAINED)
    assert loop.orders(RegisterModel)[-1].lineage.slot_token == token


def test_nothing_is_exported_before_enough_is_admitted() -> None:
    loop = Loop()
    loop.tick(times=3)
    assert loop.of(CollectionFinished) == []
    loop.collected()
    assert len(loop.of(CollectionFinished)) == 1


def test_games_that_come_while_an_iteration_trains_count_for_the_next() -> None:
    loop = Loop().collected().sealed().exported().slot()
    loop.add(admitted("later"))
    loop.done("train", "model", TRAINED).registered().decided("rejected")
    loop.tick(times=2)
    assert [fact.iteration for fact in loop.of(CollectionFinished)] == ["hex-1", "hex-2"]


def test_bad_data_blocks_with_numbers_and_asks_for_more() -> None:
    loop = Loop().collected().sealed().exported(coverage=0.5)
    assert [term.name for term in loop.of(QualityRefused)[0].terms][1] == "policy coverage"
    assert loop.of(ExportFinished) == []
    assert violations(loop.facts, EveryWaitHasADeadline) == []


def test_after_more_games_another_data_set_is_sealed_exported_and_judged() -> None:
    """The same data set would be refused for ever."""
    loop = Loop().collected().sealed().exported(coverage=0.5)
    loop.tick(times=3)
    assert len(loop.of(CollectionFinished)) == 1, "half as many again are asked for"
    loop.collected()
    assert [(one.attempt, one.since_games) for one in loop.orders(SealDataset)] == [(1, 0), (2, 10)]
    loop.sealed().exported()
    assert [fact.task for fact in loop.of(ExportStarted)] == ["hex-1-export-1", "hex-1-export-2"]
    assert len(loop.of(QualityRefused)) == 1
    loop.slot()
    (train,) = [one for one in loop.orders(RequestTask) if one.spec.kind == "train"]
    assert train.spec.work["new_positions"] == 100, "as many as are there, of 200 new ones"
    loop.done("train", "model", TRAINED).registered().decided()
    assert [fact.outcome for fact in loop.of(IterationClosed)] == ["promoted"]
    assert loop.of(IterationOpened)[-1].games_before == 20
    loop.collected()
    assert loop.of(CollectionFinished)[-1].window_positions == 300, "this iteration's and the 200 of the last one"


def test_games_that_came_before_the_refusal_do_not_count_as_more() -> None:
    """Found by seed 11: an iteration that had more than enough sealed again at once, and nothing was new."""
    loop = Loop()
    loop.add(*[admitted(f"many{number}") for number in range(10)])
    loop.tick(times=2)
    loop.sealed().exported(coverage=0.5)
    loop.tick(times=3)
    assert len(loop.of(CollectionFinished)) == 1
    loop.collected()
    assert len(loop.of(CollectionFinished)) == 2


def test_a_data_set_that_is_refused_is_asked_for_again_and_then_the_iteration_closes() -> None:
    loop = Loop().collected()
    for _ in range(3):
        order = loop.orders(SealDataset)[-1]
        loop.add(DatasetRefused(iteration=order.iteration, lane="hex", reason="nothing new"))
        loop.tick(times=3)
    assert [fact.attempt for fact in loop.of(StageRetried)] == [2, 3]
    (closed,) = loop.of(IterationClosed)
    assert closed.reason == "no data set: nothing new; 3 attempts"


def test_a_log_of_an_earlier_build_with_many_refusals_goes_on() -> None:
    """It judged one data set again and again; the windows of earlier iterations stay, and nothing waits for an hour."""
    loop = Loop().collected().sealed().exported(coverage=0.5)
    again = loop.of(QualityRefused)[0]
    for _ in range(4):
        loop.add(again)
    assert loop.context().picture.supply("hex").fresh == []
    loop.collected()
    assert [fact.outcome for fact in loop.of(IterationClosed)] == ["failed"]


def test_data_that_stays_bad_closes_the_iteration_after_three_refusals() -> None:
    loop = Loop()
    for games in (1, 1, 2):
        for _ in range(games):
            loop.collected()
        loop.sealed().exported(coverage=0.5)
    assert len(loop.of(QualityRefused)) == 3
    (closed,) = loop.of(IterationClosed)
    assert (closed.outcome, closed.reason) == ("failed", "the quality of its data was refused 3 times")
    assert loop.of(IterationOpened)[-1].min_new_games == 10
    assert violations(loop.facts, EveryWaitHasADeadline) == []
    loop.collected()
    assert loop.orders(SealDataset)[-1].attempt == 1


def test_a_completion_without_evidence_is_tried_again_and_then_the_iteration_closes() -> None:
    loop = Loop().collected().sealed()
    for _ in range(3):
        loop.done("export", "", {"positions": 0})
        loop.tick(times=3)
    assert [fact.attempt for fact in loop.of(StageRetried)] == [2, 3]
    assert [fact.outcome for fact in loop.of(IterationClosed)] == ["failed"]
    assert [fact.number for fact in loop.of(IterationOpened)] == [1, 2]


GOOD = {"positions": 100, "coverage": {"policy": 1.0}, "duplicates": 0.0}


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("coverage", [1.0], "coverage = [1.0]"),
        ("coverage", {"policy": None}, "coverage.policy = None"),
        ("coverage", {"policy": float("nan")}, "coverage.policy = nan"),
        ("duplicates", "few", "duplicates = 'few'"),
        ("positions", "many", "positions = 'many'"),
        ("positions", 1.5, "positions = 1.5"),
        ("positions", 10**400, "positions = 1000"),
    ],
)
def test_ill_shaped_evidence_is_like_none_with_field_and_value_in_the_reason(
    field: str, value: object, said: str
) -> None:
    loop = Loop().collected().sealed()
    for _ in range(3):
        loop.done("export", "shard", GOOD | {field: value})
        loop.tick(times=3)
    assert all(said in fact.reason for fact in loop.of(StageRetried)) and len(loop.of(StageRetried)) == 2
    assert [fact.outcome for fact in loop.of(IterationClosed)] == ["failed"]


@pytest.mark.parametrize("kind", ["export", "train"])
def test_a_step_without_a_command_fails_its_iteration_and_says_so(kind: str) -> None:
    commands = {name: argv for name, argv in COMMANDS.items() if name != kind}
    loop = Loop(lane(commands=commands)).collected().sealed()
    for _ in range(3):
        if kind == "train":
            loop = loop.exported() if not loop.of(ExportFinished) else loop
            loop.slot()
        loop.tick(times=3)
    (closed,) = loop.of(IterationClosed)
    assert f"commands.{kind} is missing" in closed.reason
    assert len(loop.orders(ReleaseSlot)) == len(loop.of(TrainingStarted))


def test_nothing_about_one_lane_stops_the_others_and_what_is_not_understood_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loop = Loop()
    loop.add(LaneRegistered(lane="sick", spec=lane(name="sick")))
    loop.tick(times=2)

    def step(look: Look) -> list[Action]:
        if look.spec.name == "sick":
            raise KeyError("a bug")
        return [Send(PauseLane(lane="hex", revision=1, by="me"), key="well")]

    monkeypatch.setitem(plans.STEPS, "games", step)
    well, sick = plan(loop.context())
    assert isinstance(well, Send)
    with pytest.raises(KeyError, match="a bug"):
        loop.carry_out(sick)


def test_an_iteration_that_closes_forgets_its_own_tasks_alone_whatever_lanes_are_called() -> None:
    """`hex-1` is the first iteration of `hex`, and a lane whose tasks begin with that name."""
    loop = Loop(None, LaneRegistered(lane="hex-1", spec=lane(name="hex-1")))
    assert [fact.iteration for fact in loop.of(IterationOpened)] == ["hex-1", "hex-1-1"]
    specs = [task_spec(lane(name=name), "export", task, timeout_s=1, work={}, iteration=iteration)
             for name, iteration, task in (("hex", "hex-1", "hex-1-export-1"), ("hex-1", "hex-1-1", "hex-1-1-export-1"))]  # fmt: skip
    loop.add(TaskRequested(task="hex-1-export-1", spec=specs[0], by="pipeline"))
    loop.add(TaskRequested(task="hex-1-1-export-1", spec=specs[1], by="pipeline"))
    loop.add(IterationClosed(iteration="hex-1", lane="hex", outcome="failed", reason="x", games=0, seconds=1))
    assert list(loop.context().picture.all.tasks) == ["hex-1-1-export-1"]


def test_an_abandoned_training_gives_its_slot_back() -> None:
    loop = Loop().collected().sealed().exported().slot()
    task = [one for one in loop.orders(RequestTask) if one.spec.kind == "train"][-1]
    loop.add(TaskRequested(task=task.task, spec=task.spec, by="pipeline"))
    loop.add(TaskAbandoned(task=task.task, kind="train", lane="hex", reason="x", attempts=3))
    loop.tick(times=2)
    assert len(loop.orders(ReleaseSlot)) == 1
    assert [order.holder for order in loop.orders(ClaimSlot)] == ["hex-1-1", "hex-1-2"]


def trains(loop: Loop) -> TaskRequested:
    """The training task of the newest slot runs on a node."""
    task = [one for one in loop.orders(RequestTask) if one.spec.kind == "train"][-1]
    requested = TaskRequested(task=task.task, spec=task.spec, by="pipeline")
    loop.add(requested, TaskStarted(task=task.task, attempt=1, node="n"))
    return requested


def give_way(loop: Loop) -> None:
    token = loop.of(TrainingStarted)[-1].token
    loop.add(PreemptionAsked(lane="hex", token=token, holder="h", by="me", reason="a demo", grace_s=60,
                             until=at(loop.now + 60)))  # fmt: skip
    loop.tick()


def test_a_training_that_gives_way_goes_on_from_its_checkpoint_under_the_next_slot() -> None:
    loop = Loop().collected().sealed().exported().slot()
    task = trains(loop)
    give_way(loop)
    assert loop.of(TrainingInterrupted) == [], "the program has its grace time"
    files = (artifact("model"), artifact("checkpoint"))
    loop.add(TaskFinished(task=task.task, attempt=1, node="n", kind="train", lane="hex", seconds=1, files=files,
                          evidence={"steps": 3}))  # fmt: skip
    loop.tick(times=2)
    (interrupted,) = loop.of(TrainingInterrupted)
    assert interrupted.checkpoint.role == "checkpoint" and "me: a demo" in interrupted.reason
    assert loop.of(TrainingFinished) == []
    assert len(loop.orders(ReleaseSlot)) == 1
    assert [order.holder for order in loop.orders(ClaimSlot)] == ["hex-1-1", "hex-1-2"]
    loop.slot()
    again = [one for one in loop.orders(RequestTask) if one.spec.kind == "train"][-1]
    assert [file.role for file in again.spec.inputs["checkpoint"]] == ["checkpoint"]
    loop.done("train", "model", TRAINED)
    assert len(loop.of(TrainingFinished)) == 1
    assert violations(loop.facts, EveryWaitHasADeadline) == []


def test_a_training_that_ends_within_its_grace_time_is_finished_not_interrupted() -> None:
    loop = Loop().collected().sealed().exported().slot()
    give_way_after = trains(loop)
    give_way(loop)
    loop.add(TaskFinished(task=give_way_after.task, attempt=1, node="n", kind="train", lane="hex", seconds=1,
                          files=(artifact("model"),), evidence=TRAINED))  # fmt: skip
    loop.tick(times=2)
    assert len(loop.of(TrainingFinished)) == 1 and loop.of(TrainingInterrupted) == []


def test_a_program_that_dies_of_the_request_to_give_way_is_not_tried_again_under_that_slot() -> None:
    loop = Loop().collected().sealed().exported().slot()
    task = trains(loop)
    give_way(loop)
    loop.add(TaskFailed(task=task.task, attempt=1, node="n", kind="train", lane="hex", reason="ended by signal 15",
                        retry_at=at(loop.now + 1)))  # fmt: skip
    loop.tick(times=2)
    assert [order.task for order in loop.orders(CancelTask)] == [task.task]
    assert len(loop.orders(ReleaseSlot)) == 1 and len(loop.of(TrainingInterrupted)) == 1


def test_a_training_whose_slot_is_lost_is_stopped_and_claims_anew_without_using_up_an_attempt() -> None:
    loop = Loop().collected().sealed().exported().slot()
    for number in range(1, 5):
        task = trains(loop)
        token = loop.of(TrainingStarted)[-1].token
        loop.add(SlotExpired(lane="hex", token=token, holder="h", reason="node n, where it trained, is lost"))
        loop.tick(times=2)
        assert loop.orders(CancelTask)[-1].task == task.task
        assert loop.orders(ClaimSlot)[-1].holder == f"hex-1-{number + 1}"
        loop.slot()
    assert loop.of(IterationClosed) == []
    assert "node n" in loop.of(TrainingInterrupted)[0].reason


def test_a_training_that_is_interrupted_again_and_again_ends_in_the_end() -> None:
    loop = Loop().collected().sealed().exported().slot()
    for _ in range(Settings().most_interruptions + 3):
        if loop.of(IterationClosed):
            break
        trains(loop)
        loop.add(SlotExpired(lane="hex", token=loop.of(TrainingStarted)[-1].token, holder="h", reason="x"))
        loop.tick(times=2)
        if not loop.of(IterationClosed):
            loop.slot()
    assert [fact.outcome for fact in loop.of(IterationClosed)] == ["failed"]


def test_data_of_low_quality_gets_the_lane_fewer_turns_at_training() -> None:
    loop = Loop().collected().sealed().exported(coverage=0.5)
    (hold,) = loop.orders(HoldLaneBack)
    assert (hold.lane, hold.cause, hold.severity) == ("hex", "data quality", "low_quality")
    assert "quality" in hold.reason and hold.for_s > 0
    assert Loop().collected().sealed().exported().orders(HoldLaneBack) == []


def test_the_slot_is_renewed_until_the_agent_runs_the_task() -> None:
    loop = Loop().collected().sealed().exported().slot()
    loop.tick(31)
    loop.tick(31)
    assert len(loop.orders(RenewSlot)) >= 1
    assert {order.token for order in loop.orders(RenewSlot)} == {loop.of(TrainingStarted)[0].token}


def test_a_refused_model_closes_the_iteration_with_the_reason() -> None:
    loop = Loop().collected().sealed().exported().slot().done("train", "model", TRAINED)
    loop.add(ModelRefused(lane="hex", model=SHA, iteration="hex-1", reason="stale token", token=1, highest_token=2))
    loop.tick()
    assert "stale token" in loop.of(IterationClosed)[0].reason


def test_a_late_gate_is_closed_and_never_waited_for() -> None:
    loop = Loop().collected().sealed().exported().slot().done("train", "model", TRAINED).registered()
    assert len(loop.of(EvaluationStarted)) == 1
    loop.tick(7201)
    assert len(loop.orders(CloseGate)) == 1
    loop.tick(700)
    assert [fact.outcome for fact in loop.of(IterationClosed)] == ["failed"]


def test_collecting_past_its_deadline_extends_and_says_why() -> None:
    loop = Loop()
    loop.tick(7201)
    assert [fact.reason for fact in loop.of(StageExtended)] == ["games still come in"]


def test_a_manual_lane_waits_with_that_reason() -> None:
    loop = Loop(lane(auto=("sync",))).collected()
    assert loop.of(CollectionFinished) == []
    loop.tick(7201)
    assert "by hand" in loop.of(StageExtended)[0].reason


def test_a_disabled_lane_opens_no_iteration() -> None:
    assert Loop(lane(enabled=False)).of(IterationOpened) == []


def test_a_stale_planner_opens_no_second_iteration() -> None:
    loop = Loop()
    loop.tick(up_to=1, times=3)
    assert len(loop.of(IterationOpened)) == 1


def test_a_lane_is_registered_once_and_edited_by_name() -> None:
    order = RegisterLane(lane="hex", spec=lane())
    story = given(LANE).when(register, order).then_types(LaneRegistered).asked_again_changes_nothing(register, order)
    story = story.when(register, RegisterLane(lane="hex", spec=lane(task_target_s=7.0)))
    assert isinstance(story.outcome[0], LaneEdited)
    assert story.outcome[0].changed == ("task_target_s",)


def test_an_enabled_lane_whose_step_has_no_command_is_refused_with_the_remedy(tmp_path: Path) -> None:
    without = lane(commands={name: argv for name, argv in COMMANDS.items() if name != "train"})
    story = given(LANE).when(register, RegisterLane(lane="hex", spec=without)).then_types(LaneOrderRefused)
    assert "commands.train is missing; name the program" in story.outcome[0].reason  # type: ignore[attr-defined]
    for fits in ({"auto": ("sync", "export")}, {"enabled": False}):
        order = RegisterLane(lane="hex", spec=without.model_copy(update=fits))
        given(LANE).when(register, order).then_types(LaneRegistered)
    (tmp_path / "lane.toml").write_text(
        '[[lane]]\nname = "hex"\ngame = "hex"\ncommands.selfplay = ["x", "{job}", "{out}"]\n'
    )
    with pytest.raises(BadInput, match=r"lane hex: auto = .*'export'.*commands\.export is missing; name"):
        load_lanes(tmp_path / "lane.toml")


def test_orders_that_undo_each_other_are_refused_when_they_are_older() -> None:
    story = given(LANE, LaneRegistered(lane="hex", spec=lane()))
    story = story.when(pause, PauseLane(lane="hex", revision=5, by="me")).then_types(LanePaused)
    story.when(resume, ResumeLane(lane="hex", revision=4, by="me")).then_types(LaneOrderRefused)
    story.when(resume, ResumeLane(lane="hex", revision=6, by="me")).then_types(LaneResumed)
    given(LANE).when(pause, PauseLane(lane="none", revision=1, by="me")).then_types(LaneOrderRefused)


def test_quality_is_the_mean_of_its_parts() -> None:
    value, terms = quality({"policy": 1.0}, 0.05, 1.0, 10, QualityRules())
    assert value == pytest.approx((1 + 0.5 + 1 + 1) / 4)
    assert good_enough(terms)
    assert not good_enough(quality({}, 0.0, 1.0, 10, QualityRules())[1])


def test_lineage_names_data_and_token() -> None:
    loop = Loop().collected().sealed().exported().slot().done("train", "model", TRAINED)
    lineage: Lineage = loop.orders(RegisterModel)[-1].lineage
    assert (lineage.dataset, lineage.iteration, lineage.parent) == (SHA, "hex-1", "")
    assert [fact.evidence for fact in loop.of(TrainingFinished)] == [TRAINED]
