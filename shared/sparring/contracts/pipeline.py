"""The published language of `pipeline`: lanes, and where each one's iteration stands."""

from __future__ import annotations

from typing import Literal

from sparring.contracts.base import Count, Fact, Field, Instant, Json, Name, Order, Seconds, Sha256
from sparring.contracts.lanes import LaneSpec, Step
from sparring.contracts.parts import Artifact, Term

Stage = Literal["collecting", "exporting", "training", "evaluating", "deciding", "closed"]
Outcome = Literal["promoted", "rejected", "failed"]


class LaneRegistered(Fact, owner="pipeline", entity="lane", key="lane"):
    lane: Name
    spec: LaneSpec


class LaneEdited(Fact, owner="pipeline", entity="lane", key="lane"):
    lane: Name
    spec: LaneSpec
    changed: tuple[str, ...]


class LanePaused(Fact, owner="pipeline", entity="lane", key="lane"):
    lane: Name
    revision: Count
    by: Name
    reason: str


class LaneResumed(Fact, owner="pipeline", entity="lane", key="lane"):
    lane: Name
    revision: Count
    by: Name


class LaneOrderRefused(Fact, owner="pipeline", entity="lane", key="lane"):
    lane: Name
    order: Name
    reason: str


class _Iteration(Fact):
    iteration: Name = Field(description="<lane>-<number>")
    lane: Name


class IterationOpened(_Iteration, owner="pipeline", entity="iteration", key="iteration"):
    """Collects until enough is admitted; `games_before` are the lane's admitted games that earlier ones trained on."""

    number: Count
    min_positions: Count
    min_new_games: Count
    games_before: Count
    positions_before: Count
    deadline_at: Instant


class CollectionFinished(_Iteration, owner="pipeline", entity="iteration", key="iteration"):
    """Enough is admitted; the data set is asked for."""

    new_games: Count
    new_positions: Count
    window_positions: Count
    deadline_at: Instant


class ExportStarted(_Iteration, owner="pipeline", entity="iteration", key="iteration"):
    dataset: Sha256
    task: Name
    attempt: Count
    deadline_at: Instant


class ExportFinished(_Iteration, owner="pipeline", entity="iteration", key="iteration"):
    dataset: Sha256
    shards: tuple[Artifact, ...]
    positions: Count
    coverage: dict[str, float]
    duplicates: float
    quality: float
    deadline_at: Instant


class QualityRefused(_Iteration, owner="pipeline", entity="iteration", key="iteration"):
    """The data is not good enough; collecting goes on until the deadline."""

    terms: tuple[Term, ...]
    deadline_at: Instant
    shards: tuple[Artifact, ...] = Field(default=(), description="what its export made, for nobody")


class TrainingAwaitsSlot(_Iteration, owner="pipeline", entity="iteration", key="iteration"):
    holder: Name
    deadline_at: Instant


class TrainingStarted(_Iteration, owner="pipeline", entity="iteration", key="iteration"):
    task: Name
    token: Count
    attempt: Count
    deadline_at: Instant


class TrainingInterrupted(_Iteration, owner="pipeline", entity="iteration", key="iteration"):
    """The slot was given up or lost before the training had ended; it goes on under the next one, from the checkpoint
    where there is one."""

    task: Name
    token: Count
    reason: str
    checkpoint: Artifact | None = None
    attempt: Count
    deadline_at: Instant


class TrainingFinished(_Iteration, owner="pipeline", entity="iteration", key="iteration"):
    model: Sha256
    artifact: Artifact
    token: Count
    evidence: Json
    deadline_at: Instant


class EvaluationStarted(_Iteration, owner="pipeline", entity="iteration", key="iteration"):
    """The candidate is registered; the gate plays."""

    model: Sha256
    gate: Name
    deadline_at: Instant


class PromotionAwaited(_Iteration, owner="pipeline", entity="iteration", key="iteration"):
    """The gate passed; in this lane a person promotes or rejects the model."""

    model: Sha256
    gate: Name
    deadline_at: Instant


class StepOrdered(_Iteration, owner="pipeline", entity="iteration", key="iteration"):
    """A person lets the iteration take a step that is not in its lane's `auto`; it is taken once what it needs is there."""

    step: Step
    by: Name
    deadline_at: Instant


class StepRefused(_Iteration, owner="pipeline", entity="iteration", key="iteration"):
    step: Step
    by: Name
    reason: str


class StageRetried(_Iteration, owner="pipeline", entity="iteration", key="iteration"):
    stage: Stage
    attempt: Count
    reason: str
    deadline_at: Instant


class StageExtended(_Iteration, owner="pipeline", entity="iteration", key="iteration"):
    """The deadline came while the wait still had a reason that moves."""

    stage: Stage
    reason: str
    deadline_at: Instant


class IterationClosed(_Iteration, owner="pipeline", entity="iteration", key="iteration"):
    outcome: Outcome
    reason: str
    model: str = ""
    games: Count
    seconds: Seconds


class RegisterLane(Order, owner="pipeline", entity="lane", key="lane"):
    """Adds a lane, or edits it when it exists."""

    lane: Name
    spec: LaneSpec


class PauseLane(Order, owner="pipeline", entity="lane", key="lane"):
    lane: Name
    revision: Count
    by: Name
    reason: str = ""


class ResumeLane(Order, owner="pipeline", entity="lane", key="lane"):
    lane: Name
    revision: Count
    by: Name


class TakeStep(Order, owner="pipeline", entity="iteration", key="iteration"):
    """Lets an open iteration take a step that its lane leaves to people."""

    iteration: Name
    step: Step
    by: Name
