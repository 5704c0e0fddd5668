"""One iteration of a lane: collecting, exporting, training, evaluating, closed; where each fact takes it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sparring.contracts.lanes import Step
from sparring.contracts.parts import Artifact
from sparring.contracts.pipeline import (
    CollectionFinished,
    EvaluationStarted,
    ExportFinished,
    ExportStarted,
    IterationClosed,
    IterationOpened,
    PromotionAwaited,
    QualityRefused,
    StageExtended,
    StageRetried,
    StepOrdered,
    TrainingAwaitsSlot,
    TrainingFinished,
    TrainingInterrupted,
    TrainingStarted,
)
from sparring.decider import Decider, Recorded, replace


@dataclass(frozen=True)
class Iteration:
    """`step` is finer than the stage: it names what is waited for. `attempt` counts within the stage, from 1;
    `interruptions` are those that ended because the slot did: they use up no attempt. `ordered` are the steps that a
    person let it take."""

    iteration: str = ""
    lane: str = ""
    number: int = 0
    stage: str = ""
    step: str = ""
    opened_at: datetime | None = None
    since: datetime | None = None
    deadline_at: datetime | None = None
    attempt: int = 1
    min_positions: int = 0
    min_new_games: int = 0
    games_before: int = 0
    positions_before: int = 0
    window_positions: int = 0
    new_games: int = 0
    dataset: str = ""
    task: str = ""
    shards: tuple[Artifact, ...] = ()
    token: int = 0
    model: str = ""
    artifact: Artifact | None = None
    evidence: dict[str, Any] | None = None
    gate: str = ""
    interruptions: int = 0
    checkpoint: Artifact | None = None
    exports: int = 0
    refusals: int = 0
    ordered: tuple[Step, ...] = ()

    @property
    def holder(self) -> str:
        """Under which name this attempt asks for a training slot."""
        return f"{self.iteration}-{self.attempt}"


def evolve(state: Iteration, recorded: Recorded) -> Iteration:
    fact, at = recorded.fact, recorded.at
    match fact:
        case IterationOpened():
            return Iteration(
                fact.iteration, fact.lane, fact.number, "collecting", "games", at, at, fact.deadline_at,
                min_positions=fact.min_positions, min_new_games=fact.min_new_games,
                games_before=fact.games_before, positions_before=fact.positions_before,
            )  # fmt: skip
        case CollectionFinished():
            return replace(_entered(state, "exporting", "seal", at, fact.deadline_at), new_games=fact.new_games,
                           window_positions=fact.window_positions)  # fmt: skip
        case ExportStarted():
            return replace(state, step="export", task=fact.task, dataset=fact.dataset, deadline_at=fact.deadline_at,
                           exports=state.exports + 1)  # fmt: skip
        case QualityRefused():
            more = state.min_new_games + max(1, state.min_new_games // 2)
            return replace(_entered(state, "collecting", "games", at, fact.deadline_at), min_new_games=more, task="",
                           refusals=state.refusals + 1, ordered=())  # fmt: skip
        case ExportFinished():
            return replace(_entered(state, "training", "slot", at, fact.deadline_at), shards=fact.shards, task="")
        case TrainingAwaitsSlot():
            return replace(state, step="slot", deadline_at=fact.deadline_at)
        case TrainingStarted():
            return replace(state, step="train", task=fact.task, token=fact.token, deadline_at=fact.deadline_at)
        case TrainingInterrupted():
            return replace(state, step="slot", attempt=fact.attempt, since=at, task="", deadline_at=fact.deadline_at,
                           interruptions=state.interruptions + 1, checkpoint=fact.checkpoint or state.checkpoint)  # fmt: skip
        case TrainingFinished():
            return replace(_entered(state, "evaluating", "register", at, fact.deadline_at), model=fact.model,
                           artifact=fact.artifact, evidence=fact.evidence)  # fmt: skip
        case EvaluationStarted():
            return replace(state, step="gate", gate=fact.gate, deadline_at=fact.deadline_at)
        case PromotionAwaited():
            return _entered(state, "deciding", "promote", at, fact.deadline_at)
        case StepOrdered(step=step) as fact:
            return replace(state, ordered=(*state.ordered, step), deadline_at=fact.deadline_at)
        case StageRetried():
            return replace(state, step=FIRST_STEP[state.stage], attempt=fact.attempt, since=at, task="",
                           deadline_at=fact.deadline_at)  # fmt: skip
        case StageExtended():
            return replace(state, deadline_at=fact.deadline_at)
        case IterationClosed():
            return replace(state, stage="closed", step="", deadline_at=None, since=at)
    return state


FIRST_STEP = {"collecting": "games", "exporting": "seal", "training": "slot", "evaluating": "register"}


def _entered(state: Iteration, stage: str, step: str, at: datetime, deadline_at: datetime) -> Iteration:
    return replace(state, stage=stage, step=step, since=at, deadline_at=deadline_at, attempt=1,
                   interruptions=0, checkpoint=None)  # fmt: skip


ITERATION = Decider("pipeline", "iteration", Iteration(), evolve, closed=lambda one: one.stage == "closed")
