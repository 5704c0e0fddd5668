"""Registration behind the fencing token, sequential gates, promotion, rollback, curriculum: each rule in its words."""

from __future__ import annotations

from typing import Any

import pytest
from gated_lane import EVEN, LOST, RULES, WON, A, B, C, artifact, facts, match, order, promoted, told
from hypothesis import given as any_given
from hypothesis import strategies as st

from lifecycle.core import evolve as evolving
from lifecycle.core import plan as plans
from lifecycle.core.curriculum import weight
from lifecycle.core.decide import abandon, before, close, record, register, roll_back
from lifecycle.core.evolve import LANE, regressed
from lifecycle.core.plan import ModelsPicture, plan
from lifecycle.core.state import Lane
from lifecycle.core.verdict import again, statistics, verdict
from lifecycle.settings import Settings
from sparring.contracts.base import Fact
from sparring.contracts.lanes import GateRules, LaneSpec
from sparring.contracts.lifecycle import (
    AbandonMatch,
    CloseGate,
    CurriculumRebalanced,
    EvaluationRequested,
    FenceRaised,
    GateDecided,
    GateOpened,
    MatchRecorded,
    MatchRefused,
    MeasurementFinished,
    MeasurementOpened,
    ModelPromoted,
    ModelRefused,
    ModelRegistered,
    ModelRejected,
    ModelRolledBack,
    RollBack,
    RollbackRefused,
    Statistics,
)
from sparring.contracts.pipeline import LaneRegistered
from sparring.contracts.selfplay_orch import RequestTask, TaskFinished, TaskRequested
from sparring.contracts.training_slots import (
    HoldLaneBack,
    LaneHeldBack,
    SlotClaimed,
    SlotExpired,
    SlotPreempted,
    SlotReleased,
)
from sparring.decider import Recorded
from sparring.testing import at, given
from sparring.testing.world import World


def test_a_model_is_registered_with_its_gate_once() -> None:
    given(LANE).when(register, order()).then_types(ModelRegistered, GateOpened).asked_again_changes_nothing(
        register, order()
    )


def test_a_stale_fencing_token_is_refused() -> None:
    given(LANE, *facts(order(token=9))).when(register, order(B, token=5, task="t2")).then_types(ModelRefused)


def claimed(holder: str) -> SlotClaimed:
    return SlotClaimed(lane="hex", holder=holder, until=at(90), waited_s=0, held=1, limit=3)


def test_a_stale_holders_model_is_refused_while_the_next_holder_still_trains() -> None:
    """The fence is raised on the lane's own sequence when the next slot is claimed, not when its model arrives."""
    world = World(ModelsPicture, plan, Settings(), claimed("stale"), claimed("next"))
    world.tick(times=2)
    assert [fact.token for fact in world.of(FenceRaised)] == [2]
    (late,) = given(LANE, *world.of(FenceRaised)).when(register, order(token=1)).outcome
    assert isinstance(late, ModelRefused)
    assert (late.token, late.highest_token) == (1, 2) and "later holder" in late.reason
    given(LANE, *world.of(FenceRaised)).when(register, order(token=2)).then_types(ModelRegistered, GateOpened)


@pytest.mark.parametrize("gave_back", ["released", "gave way"])
def test_the_model_of_a_holder_that_gave_its_slot_back_registers_while_the_next_one_trains(gave_back: str) -> None:
    """A training that had ended released its slot, a waiting claim got it, and the finished model was refused."""
    ended = SlotReleased(lane="hex", token=1, held_s=1) if gave_back == "released" else preempted(gave_way=True)
    world = World(ModelsPicture, plan, Settings(), claimed("ended"), ended, claimed("next"))
    world.tick(times=2)
    story = given(LANE, *world.of(FenceRaised))
    story.when(register, order(token=0)).then_types(ModelRefused)
    story = story.when(register, order(token=1)).then_types(ModelRegistered, GateOpened)
    story = story.when(register, order(B, token=3, task="t2"))._told()
    assert isinstance(story.outcome[-1], GateOpened)
    story.when(register, order(C, token=1, task="t3")).then_types(ModelRefused)


@pytest.mark.parametrize("lost", ["expired", "preempted"])
def test_the_model_of_a_holder_that_lost_its_slot_is_refused_once_the_next_one_trains(lost: str) -> None:
    expired = SlotExpired(lane="hex", token=3, holder="stale", reason="the lease ended")
    world = World(
        ModelsPicture, plan, Settings(), claimed("ended"), SlotReleased(lane="hex", token=1, held_s=1),
        claimed("stale"), expired if lost == "expired" else preempted(token=3, gave_way=False), claimed("next"),
    )  # fmt: skip
    world.tick(times=2)
    given(LANE, *world.of(FenceRaised)).when(register, order(token=3)).then_types(ModelRefused)
    given(LANE, *world.of(FenceRaised)).when(register, order(token=5)).then_types(ModelRegistered, GateOpened)


def preempted(token: int = 1, *, gave_way: bool) -> SlotPreempted:
    return SlotPreempted(lane="hex", token=token, holder="h", held_s=1, gave_way=gave_way)


def test_a_fence_is_raised_once_and_never_lowered() -> None:
    world = World(ModelsPicture, plan, Settings(), claimed("a"))
    for _ in range(3):
        world.tick(1)
    assert len(world.of(FenceRaised)) == 1
    world.add(*facts(order(token=9)))
    world.tick(1)
    assert len(world.of(FenceRaised)) == 1


def measured(elo: float, high: float) -> MeasurementFinished:
    found = Statistics(llr=0, lower=-1, upper=1, elo=elo, elo_low=elo - 50, elo_high=high, los=0, pairs=50, games=100)
    return MeasurementFinished(lane="hex", gate="hex-m2", purpose="monitor", candidate=B, baseline=A, counts=(1,) * 5,
                               statistics=found, reason="played")  # fmt: skip


@pytest.mark.parametrize(
    ("elo", "high", "severity"),
    [(-20, -1, None), (-40, 5, None), (-40, -5, "minor"), (-80, -5, "moderate"), (-160, -5, "severe")],
)
def test_a_regression_of_5_10_or_20_percent_holds_training_back(elo: float, high: float, severity: str | None) -> None:
    world = World(ModelsPicture, plan, Settings(), *facts(order()), measured(elo, high))
    world.tick()
    found = world.orders(HoldLaneBack)
    assert [hold.severity for hold in found] == ([severity] if severity else [])
    if found:
        assert found[0].cause == "regression" and "hex-m2" in found[0].reason
        world.add(LaneHeldBack(lane="hex", reason="r", until=at(9), cause="regression", severity=severity))
        before = len(world.sent)
        world.tick(60)
        assert not [one for one in world.sent[before:] if isinstance(one.order, HoldLaneBack)]


@pytest.mark.parametrize(("lost", "worse"), [(1, False), (2, False), (3, True), (50, True)])
def test_one_lost_pair_is_no_regression(lost: int, worse: bool) -> None:
    counts = (lost, 0, 0, 0, 0)
    fact = MeasurementFinished(lane="hex", gate="hex-m2", purpose="monitor", candidate=B, baseline=A, counts=counts,
                               statistics=statistics(counts, GateRules()), reason="played")  # fmt: skip
    assert regressed(fact) is worse


def test_equal_weights_from_another_cause_are_refused() -> None:
    given(LANE, *facts(order())).when(register, order(A, token=6, task="t2")).then_types(ModelRefused)


def test_a_model_without_evidence_is_refused() -> None:
    given(LANE).when(register, order(evidence={})).then_types(ModelRefused)


def test_a_clear_win_is_one_decision_up_to_the_curriculum() -> None:
    given(LANE, *facts(order())).when(record, match(WON)).then_types(
        MatchRecorded, GateDecided, ModelPromoted, MeasurementOpened, CurriculumRebalanced
    )


def test_a_clear_loss_is_rejected() -> None:
    given(LANE, *facts(order())).when(record, match(LOST)).then_types(
        MatchRecorded, GateDecided, ModelRejected, CurriculumRebalanced
    )


def test_an_undecided_gate_waits_and_a_repeated_report_changes_nothing() -> None:
    given(LANE, *facts(order())).when(record, match(EVEN)).then_types(MatchRecorded).asked_again_changes_nothing(
        record, match(EVEN)
    )


def test_zero_games_never_pass() -> None:
    given(LANE, *facts(order())).when(record, match((0, 0, 0, 0, 0))).then_types(MatchRefused)
    story = given(LANE, *facts(order())).when(close, CloseGate(lane="hex", gate="hex-g1", reason="late"))
    decided = story.outcome[0]
    assert isinstance(decided, GateDecided)
    assert (decided.verdict, decided.reason) == ("rejected", "no_games")


def test_counts_that_contradict_the_games_are_refused() -> None:
    given(LANE, *facts(order())).when(record, match(WON, games=7)).then_types(MatchRefused)


def test_a_match_of_an_unknown_gate_is_refused() -> None:
    given(LANE).when(record, match(WON, gate="nobody")).then_types(MatchRefused)


@pytest.mark.parametrize(("counts", "games"), [((0, 0, 0, 0, 0), 0), (EVEN, 7), ((10, 20, 10), 40)])
def test_three_evaluations_that_say_nothing_end_the_gate_on_what_was_played(
    counts: tuple[int, ...], games: int
) -> None:
    """It asked for another one for two hours."""
    asked = [
        EvaluationRequested(lane="hex", gate="hex-g1", task=f"e{n}", pairs=100, opening_offset=100 * n)
        for n in range(4)
    ]
    story = given(LANE, *facts(order()), *asked).when(record, match(EVEN, "e3")).then_types(MatchRecorded)
    for number in range(2):
        story = story.when(record, match(counts, f"e{number}", games=games)).then_types(MatchRefused)
    story.when(record, match(counts, "e2", games=games)).then_types(
        MatchRefused, GateDecided, ModelRejected, CurriculumRebalanced
    )


def played(world: World, task: str, evidence: dict[str, Any]) -> None:
    (spec,) = [one.spec for one in world.orders(RequestTask) if one.task == task]
    world.add(TaskRequested(task=task, spec=spec, by="lifecycle"))
    world.add(
        TaskFinished(
            task=task, attempt=1, node="n", kind="evaluate", lane="hex", seconds=1, files=(), evidence=evidence
        )
    )


SPEC = {"name": "hex", "game": "hex", "gate": RULES.model_dump(),
        "commands": dict.fromkeys(("selfplay", "evaluate"), ("x", "{job}", "{out}"))}  # fmt: skip


@pytest.mark.parametrize(
    ("field", "value"),
    [("counts", [1, -1, 2]), ("counts", [1, "x"]), ("counts", None), ("games", 1.5), ("settings", 3)],
)
def test_ill_shaped_evidence_is_a_lost_evaluation_with_field_and_value_in_the_reason(field: str, value: object) -> None:
    """It stopped the planner for every lane."""
    world = World(ModelsPicture, plan, Settings(), LaneRegistered(lane="hex", spec=LaneSpec.model_validate(SPEC)),
                  *facts(order()))  # fmt: skip
    for number in (1, 2, 3):
        world.tick(times=3)
        played(
            world, f"hex-g1-e{number}", {"counts": list(EVEN), "games": 2 * sum(EVEN), "settings": {}} | {field: value}
        )
    world.tick(times=3)
    assert [fact.reason for fact in world.of(GateDecided)] == ["no_games"]
    assert all(field in fact.reason for fact in world.of(MatchRefused)) and len(world.of(MatchRefused)) == 3


def test_an_evaluation_without_a_command_ends_the_gate_and_says_so() -> None:
    spec = LaneSpec.model_validate(SPEC | {"commands": {"selfplay": ("x", "{job}", "{out}")}})
    world = World(ModelsPicture, plan, Settings(), LaneRegistered(lane="hex", spec=spec), *facts(order()))
    world.tick(times=8)
    assert [fact.reason for fact in world.of(GateDecided)] == ["no_games"]
    assert "commands.evaluate is missing" in world.of(MatchRefused)[0].reason


def test_nothing_about_one_gate_stops_the_others_and_what_is_not_understood_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(ModelsPicture, plan, Settings(), LaneRegistered(lane="hex", spec=LaneSpec.model_validate(SPEC)),
                  *facts(order()))  # fmt: skip
    other = order(lane="sick")
    world.add(*[fact.model_copy(update={"lane": "sick"}) for fact in facts(other)])
    understood = plans._gate

    def gate(ctx: Any, lane: str, *more: Any) -> Any:
        if lane == "sick":
            raise KeyError("a bug")
        return understood(ctx, lane, *more)

    monkeypatch.setattr(plans, "_gate", gate)
    *well, sick = plan(world.context())
    assert len(well) == 1 and world.carry_out(well[0])
    with pytest.raises(KeyError, match="a bug"):
        world.carry_out(sick)


def test_three_lost_evaluations_end_the_gate_on_what_was_played() -> None:
    asked = [
        EvaluationRequested(lane="hex", gate="hex-g1", task=f"e{n}", pairs=100, opening_offset=100 * n)
        for n in range(3)
    ]
    story = given(LANE, *facts(order()), *asked)
    for number in range(2):
        story = story.when(abandon, AbandonMatch(lane="hex", gate="hex-g1", task=f"e{number}", reason="x")).then_types(
            MatchRefused
        )
    story = story.when(abandon, AbandonMatch(lane="hex", gate="hex-g1", task="e2", reason="CUDA")).then_types(
        MatchRefused, GateDecided, ModelRejected, CurriculumRebalanced
    )
    decided = story.outcome[1]
    assert isinstance(decided, GateDecided) and decided.ended_by.endswith("did not come, the last one: CUDA")


BACK = RollBack(lane="hex", by="me", reason="worse")


def test_a_rollback_names_both_and_is_no_promotion() -> None:
    story = promoted(A, B).when(roll_back, BACK)
    assert isinstance(story.outcome[0], ModelRolledBack)
    assert (story.outcome[0].model, story.outcome[0].to) == (B, A)
    story.then_types(ModelRolledBack)


def test_a_second_rollback_goes_further_back_and_never_to_a_model_that_was_rolled_back() -> None:
    story = promoted(A, B, C)
    for expected in ((C, B), (B, A), (A, "")):
        story = story.when(roll_back, BACK)
        (back,) = story.outcome
        assert isinstance(back, ModelRolledBack) and (back.model, back.to) == expected
        story._told()
    story.when(roll_back, BACK).then_types(RollbackRefused)


def test_three_monitoring_matches_in_a_row_are_asked_for_and_roll_the_model_back() -> None:
    """One match was opened for a promotion, and no second one: three in a row never came."""
    story, gate = promoted(A, B), "hex-m2"
    for _ in range(2):
        story = story.when(record, match(LOST, f"{gate}-e1", gate))
        opened = story.outcome[-1]
        assert isinstance(opened, MeasurementOpened) and (opened.candidate, opened.baseline) == (B, A)
        assert opened.gate != gate
        story, gate = story._told(), opened.gate
    world = World(ModelsPicture, plan, Settings(), *told(story))
    world.tick()
    assert world.of(ModelRolledBack) == []
    story = story.when(record, match(LOST, f"{gate}-e1", gate)).then_types(MatchRecorded, MeasurementFinished)
    world.add(*story.outcome)
    world.tick(times=2)
    assert [(fact.model, fact.to) for fact in world.of(ModelRolledBack)] == [(B, A)]


def test_a_monitoring_match_that_is_not_lost_ends_the_doubt() -> None:
    story = promoted(A, B).when(record, match(LOST, "hex-m2-e1", "hex-m2"))._told()
    again = story.outcome[-1].gate  # type: ignore[attr-defined]
    story.when(record, match(EVEN, f"{again}-e1", again)).then_types(MatchRecorded, MeasurementFinished)


def test_a_rollback_ends_the_gate_against_the_model_that_is_rolled_back() -> None:
    """A candidate was promoted for beating a model that played no more."""
    story = promoted(A, B).when(register, order(C, token=9, task="t3"))._told()
    story = story.when(record, match(EVEN, "hex-g3-e1", "hex-g3")).then_types(MatchRecorded)
    story = story.when(roll_back, BACK).then_types(GateDecided, ModelRejected, CurriculumRebalanced, ModelRolledBack)
    decided = story.outcome[0]
    assert isinstance(decided, GateDecided) and (decided.verdict, decided.baseline) == ("rejected", B)
    assert decided.ended_by == "its baseline was rolled back"
    found = again(decided)
    assert found is not None and found.verdict == "rejected"
    story.when(record, match(WON, "hex-g3-e2", "hex-g3")).then_types(MatchRecorded)


def test_a_lane_with_a_thousand_models_forgets_those_that_no_decision_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its state travels in one message: models of months may not fill it. Numbers go on, and a rollback finds its model."""
    monkeypatch.setattr(evolving, "MODELS_KEPT", 10)
    names = [f"{number:064x}" for number in range(1, 41)]
    lane = Lane()
    for number, name in enumerate(names, 1):
        story: list[Fact] = [one for one in facts(order(name, token=number, task=f"t{number}"))
                             if isinstance(one, ModelRegistered)]  # fmt: skip
        registered = story[0].model_copy(update={"number": number})
        lane = evolving.evolve(lane, Recorded(number, at(number), registered, str(number)))
        how: Fact = ModelRejected(lane="hex", model=name, gate="g", reason="r", iteration="i")
        if number in (2, 3):
            how = ModelPromoted(lane="hex", model=name, number=number, previous=lane.production, gate="g",
                                artifact=artifact(name), iteration="i")  # fmt: skip
        lane = evolving.evolve(lane, Recorded(number, at(number), how, f"{number}b"))
    assert len(lane.models) <= 12 and lane.numbered == 40
    assert {names[1], names[2], names[39]} <= set(lane.models) and names[10] not in lane.models
    assert before(lane) == names[1] and lane.models[names[1]].artifact == artifact(names[1])


def test_a_rollback_without_production_is_refused() -> None:
    given(LANE).when(roll_back, RollBack(lane="hex", by="me", reason="x")).then_types(RollbackRefused)


@any_given(st.lists(st.integers(0, 60), min_size=5, max_size=5))
def test_a_verdict_can_be_computed_again_from_its_fact(counts: list[int]) -> None:
    found = verdict(counts, RULES, over=True)
    assert found is not None
    fact = GateDecided(lane="hex", gate="g", candidate=A, baseline="", iteration="i", verdict=found.verdict, reason=found.reason,
                       counts=tuple(counts), statistics=found.statistics, rules=RULES, policy="p", settings_hash="s")  # fmt: skip
    assert again(GateDecided.model_validate_json(fact.model_dump_json())) == found
    assert sum(counts) > 0 or found.reason == "no_games"


@any_given(st.floats(0, 1), st.integers(0, 500), st.booleans(), st.booleans())
def test_the_curriculums_weight_stays_in_its_band(score: float, games: int, has_model: bool, promoted: bool) -> None:
    value, terms = weight(score, games, (), has_model=has_model, promoted=promoted)
    assert 0.5 <= value <= 2.0
    assert {term.name for term in terms} == {"win rate", "model", "Elo trend", "stale", "verdict"}


def test_the_planner_asks_for_games_with_openings_of_their_own_until_the_gate_is_decided() -> None:
    spec = LaneSpec.model_validate(SPEC)
    world = World(ModelsPicture, plan, Settings(), LaneRegistered(lane="hex", spec=spec), *facts(order()))
    for number in (1, 2):
        world.tick(times=3)
        task = f"hex-g1-e{number}"
        request = next(one for one in world.orders(RequestTask) if one.task == task)
        assert request.spec.work["opening_offset"] == 100 * (number - 1)
        counts = list(EVEN if number == 1 else WON)
        played(world, task, {"counts": counts, "games": 2 * sum(counts), "settings": {}})
    world.tick(times=3)
    assert [fact.verdict for fact in world.of(GateDecided)] == ["passed"]
    assert len(world.of(ModelPromoted)) == 1
    world.tick(times=3)
    assert [one.task for one in world.orders(RequestTask)][-1] == "hex-a1-e1"


def test_a_gate_that_takes_too_long_is_decided() -> None:
    world = World(ModelsPicture, plan, Settings(gate_s=100), *facts(order()))
    world.tick(101)
    told = [(fact.reason, fact.ended_by) for fact in world.of(GateDecided)]
    assert told == [("no_games", "the gate's deadline passed")]
