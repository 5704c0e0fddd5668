"""A lane's models and gates: what is registered, what is measured, which one plays."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from sparring.contracts.lanes import GateRules
from sparring.contracts.lifecycle import Purpose
from sparring.contracts.parts import Artifact
from sparring.decider import replace

ModelState = Literal["evaluating", "passed", "production", "superseded", "rejected", "rolled_back"]


@dataclass(frozen=True)
class Model:
    """A registered model."""

    number: int
    artifact: Artifact
    iteration: str
    task: str
    state: ModelState = "evaluating"


@dataclass(frozen=True)
class Task:
    """What one evaluation task of a gate was asked for, and what it reported so far."""

    pairs: int
    offset: int
    counts: tuple[int, ...] = ()
    final: bool = False
    abandoned: bool = False

    @property
    def open(self) -> bool:
        return not self.final and not self.abandoned


@dataclass(frozen=True)
class Gate:
    """A match between a candidate and a baseline ('' is generation 0); `iteration` is the one that made the candidate."""

    gate: str
    purpose: Purpose
    candidate: str
    baseline: str
    iteration: str
    opened_at: datetime
    rules: GateRules
    most_pairs: int
    tasks: dict[str, Task] = field(default_factory=dict)
    closed: bool = False
    by_hand: bool = False

    @property
    def counts(self) -> tuple[int, ...]:
        """The cumulative counts over all tasks; empty without games."""
        reported = [task.counts for task in self.tasks.values() if task.counts]
        return tuple(sum(column) for column in zip(*reported, strict=True)) if reported else ()

    @property
    def pairs(self) -> int:
        return sum(self.counts)

    @property
    def asked(self) -> int:
        """Pairs played or on their way; what an abandoned task owed is asked anew."""
        return sum(sum(task.counts) if task.abandoned or task.final else task.pairs for task in self.tasks.values())

    @property
    def next_offset(self) -> int:
        return max((task.offset + task.pairs for task in self.tasks.values()), default=0)

    @property
    def abandoned(self) -> int:
        return sum(task.abandoned for task in self.tasks.values())

    def with_task(self, name: str, task: Task) -> Gate:
        return replace(self, tasks=self.tasks | {name: task})


@dataclass(frozen=True)
class Lane:
    """Everything that `lifecycle` decides for a lane rests on this. `models` are the newest ones and those that may play or
    be played against again; `numbered` is the number of the last one registered, `passed` leads from those that wait for a person to their gates."""

    models: dict[str, Model] = field(default_factory=dict)
    production: str = ""
    history: tuple[str, ...] = ()
    highest_token: int = 0
    gates: dict[str, Gate] = field(default_factory=dict)
    measurements: int = 0
    weight: float = 1.0
    elo_steps: tuple[float, ...] = ()
    monitored: dict[str, int] = field(default_factory=dict)
    regressions: int = 0
    numbered: int = 0
    passed: dict[str, str] = field(default_factory=dict)

    @property
    def open_gates(self) -> list[Gate]:
        return [gate for gate in self.gates.values() if not gate.closed]
