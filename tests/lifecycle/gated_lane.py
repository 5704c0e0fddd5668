"""A lane of `lifecycle`: its orders, its matches, and a story in which models come to play."""

from __future__ import annotations

from typing import Any

from lifecycle.core.decide import record, register
from lifecycle.core.evolve import LANE
from sparring.contracts.base import Fact
from sparring.contracts.lanes import GateRules
from sparring.contracts.lifecycle import Lineage, RecordMatch, RegisterModel
from sparring.contracts.parts import Artifact
from sparring.testing import given
from sparring.testing.scenario import Scenario

A, B, C = "a" * 64, "b" * 64, "c" * 64
DATA = "d" * 64
RULES = GateRules(elo1=50, max_pairs=400, pairs_per_task=100, anchor_pairs=50)


def artifact(model: str) -> Artifact:
    return Artifact(name="model", role="model", sha256=model, bytes=1)


def order(model: str = A, token: int = 5, task: str = "t1", **more: Any) -> RegisterModel:
    lineage = Lineage(
        parent="", dataset=DATA, task=task, iteration="hex-1", code_version="1", settings_hash="s", slot_token=token
    )
    values: dict[str, Any] = {"lane": "hex", "model": model, "artifact": artifact(model), "lineage": lineage,
                              "evidence": {"steps": 1}, "rules": RULES}  # fmt: skip
    return RegisterModel(**(values | more))


def match(counts: tuple[int, ...], task: str = "hex-g1-e1", gate: str = "hex-g1", **more: Any) -> RecordMatch:
    values: dict[str, Any] = {"games": 2 * sum(counts), "settings": {}}
    return RecordMatch(lane="hex", gate=gate, task=task, counts=counts, **(values | more))


def facts(*orders: RegisterModel) -> list[Fact]:
    story = given(LANE)
    for one in orders:
        story = story.when(register, one)._told()
    return told(story)


def told(story: Scenario) -> list[Fact]:
    return [fact if isinstance(fact, Fact) else fact[1] for fact in story.facts]


WON, LOST, EVEN = (0, 5, 20, 45, 30), (30, 45, 20, 5, 0), (10, 20, 40, 20, 10)


def promoted(*models: str) -> Scenario:
    """A lane in which each of the models came to play after the one before it."""
    story = given(LANE)
    for number, model in enumerate(models, start=1):
        story = story.when(register, order(model, token=4 + number, task=f"t{number}"))._told()
        story = story.when(record, match(WON, f"hex-g{number}-e1", f"hex-g{number}"))._told()
    return story
