"""Values that several owners' messages share."""

from __future__ import annotations

from typing import Literal

from sparring.contracts.base import Annotated, Count, Field, Json, Name, Part, Seconds, Sha256

Kind = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,39}$", description="selfplay, export, train, evaluate, ...")]
Level = Literal["none", "soft", "hard", "stop"]
# what ended within this share of its limit proves that the limit could be lower
WELL_WITHIN = 0.8
LEVELS: tuple[Level, ...] = ("none", "soft", "hard", "stop")
FACTORS: dict[Level, float] = {"none": 1.0, "soft": 0.5, "hard": 0.1, "stop": 0.0}
# the lane of back-pressure that presses on every lane
ALL_LANES = "*"
# a stage is throttled by the queue downstream of it; what drains a queue is never throttled by it
THROTTLED_BY: dict[str, tuple[str, ...]] = {
    "selfplay": ("training-data", "pending-games", "nodes"),
    "train": ("evaluation",),
    "evaluate": ("promotion",),
}
# training data counts as admitted and not yet exported, so that here it is export that drains it
DRAINED_BY: dict[str, tuple[str, ...]] = {
    "training-data": ("export",),
    "pending-games": ("sync",),
    "sync": ("sync",),
    "export": ("export", "train"),
    "evaluation": ("evaluate",),
    "promotion": ("promote",),
}


class Artifact(Part):
    """A file by its content; where it lies is a hint."""

    name: Name
    role: Name
    sha256: Sha256
    bytes: Count
    url: str = ""


class Check(Part):
    """What the lane's own verification said of a batch of games."""

    ok: bool
    reason: str = ""
    games: Count = 0
    positions: Count = 0
    policy_coverage: Annotated[float, Field(ge=0, le=1)] | None = None
    decisive_share: Annotated[float, Field(ge=0, le=1)] | None = None
    mean_plies: Annotated[float, Field(ge=0)] | None = None
    duplicates: Annotated[float, Field(ge=0, le=1)] | None = None


class TaskSpec(Part):
    """What a task runs: everything that its program's job file will say, but local paths."""

    kind: Kind
    lane: Name
    seed: int
    game: str = ""
    game_params: Json = Field(default_factory=dict)
    params: Json = Field(default_factory=dict)
    work: Json = Field(default_factory=dict)
    inputs: dict[str, tuple[Artifact, ...]] = Field(default_factory=dict)
    argv: tuple[str, ...]
    verify: tuple[str, ...] = ()
    timeout_s: Seconds
    iteration: str = ""
    model: str = Field(default="", description="the model that plays, '' is generation 0")
    gate: str = Field(default="", description="the gate or measurement that an evaluation is for")
    slot_token: Count | None = Field(default=None, description="the fencing token of the training slot")
    exclusive: bool = Field(default=False, description="stops at its slot's own deadline when cut off")
    gpu: bool = False
    memory_bytes: Count = 0
    disk_bytes: Count = 0
    outside: bool = Field(default=False, description="runs in the process of whoever opened it, is never placed")


class Term(Part):
    """One number that a decision compared."""

    name: Name
    value: float
    limit: float | None = None


def how_to_start(service: str) -> str:
    """The remedy where a service does not run."""
    return f"start it: docker compose up -d {service}, or uv run --package {service} {service}"


def handler_limit(service: str) -> str:
    """The name of the threshold that a service's handlers have to keep."""
    return f"handler-{service}"
