"""The published language of `lifecycle`: models, what was measured of them, and which one plays."""

from __future__ import annotations

from typing import Literal

from sparring.contracts.base import Annotated, Count, Fact, Field, Json, Name, Order, Part, Sha256
from sparring.contracts.lanes import GateRules
from sparring.contracts.parts import Artifact, Term

Counts = Annotated[tuple[Count, ...], Field(min_length=2, max_length=5, description="from worst to best")]
Purpose = Literal["gate", "anchor", "monitor"]


class Lineage(Part):
    """Where a model comes from; without it none is registered."""

    parent: str = Field(description="'' is generation 0")
    dataset: Sha256
    task: Name
    iteration: Name
    code_version: Name
    settings_hash: Name
    slot_token: Count


class Statistics(Part):
    """What a verdict rests on; Elo in the logistic model, with a 95 % interval."""

    llr: float
    lower: float
    upper: float
    elo: float
    elo_low: float
    elo_high: float
    los: float
    pairs: Count
    games: Count


class _Lane(Fact):
    lane: Name


class ModelRegistered(_Lane, owner="lifecycle", entity="lane", key="lane"):
    model: Sha256
    number: Count = Field(description="1 is the lane's first trained model")
    artifact: Artifact
    lineage: Lineage
    evidence: Json


class ModelRefused(_Lane, owner="lifecycle", entity="lane", key="lane"):
    model: Sha256
    iteration: Name
    reason: str
    token: Count
    highest_token: Count


class FenceRaised(_Lane, owner="lifecycle", entity="lane", key="lane"):
    """A later training slot was claimed: from here on a model that was trained under an older token is refused."""

    token: Count


class GateOpened(_Lane, owner="lifecycle", entity="lane", key="lane"):
    gate: Name
    candidate: Sha256
    baseline: str = Field(description="'' is generation 0")
    iteration: Name
    rules: GateRules
    by_hand: bool = Field(default=False, description="a person promotes what passes it")


class MeasurementOpened(_Lane, owner="lifecycle", entity="lane", key="lane"):
    """Games outside of a gate: against the anchor or an older model."""

    gate: Name
    purpose: Purpose
    candidate: Sha256
    baseline: str
    pairs: Count


class EvaluationRequested(_Lane, owner="lifecycle", entity="lane", key="lane"):
    """The next games of a gate; the offset gives them openings of their own."""

    gate: Name
    task: Name
    pairs: Count
    opening_offset: Count


class MatchRecorded(_Lane, owner="lifecycle", entity="lane", key="lane"):
    """Cumulative counts of one task of a gate; a later report replaces an earlier one."""

    gate: Name
    purpose: Purpose
    task: Name
    candidate: Sha256
    baseline: str
    counts: Counts
    games: Count
    settings: Json
    final: bool


class MatchRefused(_Lane, owner="lifecycle", entity="lane", key="lane"):
    gate: Name
    task: Name
    reason: str


class GateDecided(_Lane, owner="lifecycle", entity="lane", key="lane"):
    gate: Name
    candidate: Sha256
    baseline: str
    iteration: Name
    verdict: Literal["passed", "rejected"]
    reason: Literal["accepted_h1", "accepted_h0", "inconclusive", "no_games"]
    counts: tuple[Count, ...]
    statistics: Statistics | None
    rules: GateRules
    policy: str
    settings_hash: str
    ended_by: str = Field(default="", description="what ended it before its games did")
    by_hand: bool = Field(default=False, description="it passed, and a person promotes or rejects the model")


class MeasurementFinished(_Lane, owner="lifecycle", entity="lane", key="lane"):
    gate: Name
    purpose: Purpose
    candidate: Sha256
    baseline: str
    counts: tuple[Count, ...]
    statistics: Statistics | None
    reason: str


class ModelPromoted(_Lane, owner="lifecycle", entity="lane", key="lane"):
    model: Sha256
    number: Count
    previous: str
    gate: Name
    artifact: Artifact
    iteration: Name
    by: str = Field(default="", description="'' is its gate")


class ModelRejected(_Lane, owner="lifecycle", entity="lane", key="lane"):
    model: Sha256
    gate: Name
    reason: str
    iteration: Name


class ModelRolledBack(_Lane, owner="lifecycle", entity="lane", key="lane"):
    model: Sha256
    to: str
    artifact: Artifact | None
    by: Name
    reason: str


class RollbackRefused(_Lane, owner="lifecycle", entity="lane", key="lane"):
    reason: str
    by: Name


class ModelOrderRefused(_Lane, owner="lifecycle", entity="lane", key="lane"):
    """Of an order to promote or to reject."""

    order: Name
    reason: str
    by: Name


class CurriculumRebalanced(_Lane, owner="lifecycle", entity="lane", key="lane"):
    weight: float
    terms: tuple[Term, ...]


class RegisterModel(Order, owner="lifecycle", entity="lane", key="lane"):
    lane: Name
    model: Sha256
    artifact: Artifact
    lineage: Lineage
    evidence: Json
    rules: GateRules
    by_hand: bool = Field(default=False, description="a person promotes it when it passes")


class RecordMatch(Order, owner="lifecycle", entity="lane", key="lane"):
    """Absolute cumulative counts of (gate, task), from worst to best for the candidate."""

    lane: Name
    gate: Name
    task: Name
    counts: Counts
    games: Count
    settings: Json
    final: bool = True


class AbandonMatch(Order, owner="lifecycle", entity="lane", key="lane"):
    """The games of this task will not come."""

    lane: Name
    gate: Name
    task: Name
    reason: str


class CloseGate(Order, owner="lifecycle", entity="lane", key="lane"):
    """Time is up: decide on what has been played."""

    lane: Name
    gate: Name
    reason: str


class RollBack(Order, owner="lifecycle", entity="lane", key="lane"):
    lane: Name
    to: str = ""
    by: Name
    reason: str


class PromoteModel(Order, owner="lifecycle", entity="lane", key="lane"):
    """Of a lane whose `auto` lacks `promote`: puts a model that passed its gate into production."""

    lane: Name
    model: str = Field(default="", description="its hash or the beginning of it; '' is the one that waits")
    by: Name


class RejectModel(Order, owner="lifecycle", entity="lane", key="lane"):
    """A model that passed its gate is not to play."""

    lane: Name
    model: str = Field(default="", description="its hash or the beginning of it; '' is the one that waits")
    by: Name
    reason: str
