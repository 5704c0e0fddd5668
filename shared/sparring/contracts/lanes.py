"""What a lane is: a game, how it is played, trained and gated, as a lane file says."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from sparring.contracts.base import Annotated, Count, Field, Json, Part, Seconds

Step = Literal["sync", "export", "train", "evaluate", "promote"]
# which step has to be in the lane's `auto`, or taken by a person, for an iteration to leave what it waits for
LEAVES: dict[str, Step] = {"games": "export", "slot": "train", "register": "evaluate", "promote": "promote"}
LaneName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,40}$")]
Argv = Annotated[tuple[str, ...], Field(min_length=1)]


class IterationRules(Part):
    """How much an iteration collects and trains on."""

    min_positions: Annotated[int, Field(gt=0)] = 10_000
    min_new_games: Annotated[int, Field(gt=0)] = 100
    export_cooldown_s: Seconds = 300.0
    max_trained_to_new_ratio: Annotated[float, Field(gt=0)] = 4.0
    window_iterations: Count | None = None
    window_scale: Annotated[float, Field(gt=0)] = 1.0
    games_per_task: Annotated[int, Field(gt=0)] = 64


class QualityRules(Part):
    """The bands inside which a lane's data is good enough to train on."""

    min_quality: Annotated[float, Field(ge=0, le=1)] = 0.6
    min_coverage: Annotated[float, Field(ge=0, le=1)] = 0.99
    max_duplicates: Annotated[float, Field(ge=0, le=1)] = 0.10
    decisive_low: float = 0.0
    decisive_high: float = 1.0
    plies_low: float = 0.0
    plies_high: float = 1e9


class GateRules(Part):
    """The sequential test that a candidate has to pass; Elo bounds in the units of `mode`."""

    mode: Literal["normalized", "logistic"] = "normalized"
    elo0: float = 0.0
    elo1: float = 35.0
    alpha: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    beta: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    max_pairs: Annotated[int, Field(gt=0)] = 2000
    pairs_per_task: Annotated[int, Field(gt=0)] = 50
    parallel_tasks: Annotated[int, Field(gt=0)] = 1
    simulations: Annotated[int, Field(gt=0)] = 32
    opening_plies: Count = 2
    anchor_pairs: Count = 50

    @model_validator(mode="after")
    def _bounds(self) -> Self:
        if self.elo1 <= self.elo0:
            raise ValueError(f"gate.elo1 = {self.elo1} must be above gate.elo0 = {self.elo0}")
        return self


class QueueLimits(Part):
    """Where back-pressure begins and ends, in positions of a lane's training data and in pending games."""

    training_data_positions_soft: Count = 100_000
    training_data_positions_hard: Count = 500_000
    pending_games_soft: Count | None = None
    pending_games_hard: Count | None = None


class Tunable(Part):
    """The range of a hyper-parameter that tuning may move."""

    low: float
    high: float
    scale: Literal["linear", "log"] = "linear"


class KindNeeds(Part):
    """What a seat of one task kind needs on its node."""

    gpu: bool = False
    memory_bytes: Count = 0
    disk_bytes: Count = 0


class LaneSpec(Part):
    """One configuration being trained."""

    name: LaneName
    game: Annotated[str, Field(min_length=1)]
    game_params: Json = Field(default_factory=dict)
    players: Annotated[int, Field(ge=1)] = 2
    enabled: bool = True
    task_target_s: Annotated[float, Field(gt=0)] = 300.0
    anchor: Literal["generation0"] = "generation0"
    commands: dict[str, Argv]
    params: Json = Field(default_factory=dict)
    needs: dict[str, KindNeeds] = Field(default_factory=dict)
    iteration: IterationRules = IterationRules()
    quality: QualityRules = QualityRules()
    gate: GateRules = GateRules()
    backpressure: QueueLimits = QueueLimits()
    tunable: dict[str, Tunable] = Field(default_factory=dict)
    auto: tuple[Step, ...] = ("sync", "export", "train", "evaluate", "promote")
