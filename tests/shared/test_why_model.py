"""`spar why MODEL`: why it was promoted or not, with the numbers, months after its iteration."""

from __future__ import annotations

import asyncio
import json

from nats.aio.client import Client
from stories import after, asked, registered, spar, weights

from sparring.contracts.base import Fact
from sparring.contracts.lanes import GateRules
from sparring.contracts.lifecycle import (
    GateDecided,
    GateOpened,
    MatchRecorded,
    MeasurementFinished,
    MeasurementOpened,
    ModelPromoted,
    ModelRejected,
    ModelRolledBack,
    Statistics,
)

FIRST, SECOND, THIRD = "abcdef1" + "0" * 57, "abcdef2" + "0" * 57, "c" * 64
RULES = GateRules(max_pairs=400)


def opened(model: str, number: int, parent: str = "") -> list[Fact]:
    """Registered by the iteration of that number, and its gate."""
    return [
        registered(model, number, parent, iteration=f"hex-{number}"),
        GateOpened(lane="hex", gate=f"hex-g{number}", candidate=model, baseline=parent, iteration=f"hex-{number}", rules=RULES),
    ]  # fmt: skip


def played(model: str, number: int, counts: tuple[int, ...], task: int = 1) -> MatchRecorded:
    return MatchRecorded(lane="hex", gate=f"hex-g{number}", purpose="gate", task=f"hex-g{number}-e{task}", candidate=model,
                         baseline="", counts=counts, games=2 * sum(counts), settings={}, final=True)  # fmt: skip


def decided(model: str, number: int, counts: tuple[int, ...], *, passed: bool, baseline: str = "") -> GateDecided:
    numbers = Statistics(llr=-3.1, lower=-2.9, upper=2.9, elo=-0.2, elo_low=-20, elo_high=19, los=0.4, pairs=sum(counts),
                         games=2 * sum(counts))  # fmt: skip
    return GateDecided(lane="hex", gate=f"hex-g{number}", candidate=model, baseline=baseline, iteration=f"hex-{number}",
                       verdict="passed" if passed else "rejected", reason="accepted_h1" if passed else "accepted_h0",
                       counts=counts, statistics=numbers, rules=RULES, policy="p", settings_hash="s")  # fmt: skip


def promoted(model: str, number: int, previous: str = "") -> ModelPromoted:
    return ModelPromoted(lane="hex", model=model, number=number, previous=previous, gate=f"hex-g{number}",
                         artifact=weights(model), iteration=f"hex-{number}")  # fmt: skip


async def test_why_a_model_was_rejected_is_said_with_its_numbers(nc: Client) -> None:
    _, url = await after(
        nc, *opened(FIRST, 1), played(FIRST, 1, (0, 0, 5, 0, 45)), decided(FIRST, 1, (0, 0, 5, 0, 45), passed=True),
        promoted(FIRST, 1), *opened(SECOND, 2, FIRST), played(SECOND, 2, (1, 2, 40, 2, 1)),
        played(SECOND, 2, (2, 2, 40, 2, 4), task=2), decided(SECOND, 2, (3, 4, 80, 4, 5), passed=False, baseline=FIRST),
        ModelRejected(lane="hex", model=SECOND, gate="hex-g2", reason="accepted_h0", iteration="hex-2"),
    )  # fmt: skip
    said = await asked(url, "why", "abcdef2", "--at", "11")
    assert "abcdef200000: model 2 of hex, rejected" in said and "accepted_h0" in said
    assert "made by    hex-2" in said and "from data set dddddddddddd and model abcdef100000" in said
    assert "hex-g2 against model abcdef100000: rejected: accepted_h0" in said
    assert "H0 +0, H1 +35 normalized Elo, alpha 0.05, beta 0.05, at most 400 pairs" in said
    assert "LLR -3.10 in [-2.90, 2.90]" in said and "Elo +0 [-20, +19], LOS 0.400" in said
    assert "played   96 pairs in 2 tasks, from worst to best [3, 4, 80, 4, 5]" in said
    by_gate = await asked(url, "why", "hex-g2", "--at", "11")
    assert by_gate.rpartition("(")[0] == said.rpartition("(")[0], "a gate answers for its candidate"
    found = json.loads(await asked(url, "why", SECOND, "--json"))
    assert found["model"]["state"] == "rejected" and len(found["matches"][0]["tasks"]) == 2


async def test_what_became_of_a_model_and_what_plays_still(nc: Client) -> None:
    measuring = MeasurementOpened(lane="hex", gate="hex-a1", purpose="anchor", candidate=FIRST, baseline="", pairs=50)
    ended = MeasurementFinished(lane="hex", gate="hex-a1", purpose="anchor", candidate=FIRST, baseline="", counts=(),
                                statistics=None, reason="ended early")  # fmt: skip
    _, url = await after(
        nc, *opened(FIRST, 1), decided(FIRST, 1, (0, 0, 5, 0, 45), passed=True), promoted(FIRST, 1), measuring, ended,
        *opened(SECOND, 2, FIRST), promoted(SECOND, 2, FIRST), *opened(THIRD, 3), played(THIRD, 3, (0, 1, 2, 3, 4)),
        ModelRolledBack(lane="hex", model=SECOND, to=FIRST, artifact=None, by="anna", reason="it resigns"),
    )  # fmt: skip
    first = await asked(url, "why", "abcdef1")
    assert "production" in first and "abcdef200000 was rolled back" in first
    assert "measured   hex-a1 against generation 0: ended early" in first
    assert "rolled_back" in (second := await asked(url, "why", "abcdef2")) and "by anna: it resigns" in second
    third = await asked(url, "why", "cccccc")
    assert "evaluating" in third and "10 of at most 400 pairs" in third and "[0, 1, 2, 3, 4]" in third
    superseded = await asked(url, "why", "abcdef1", "--at", str(5 + 2 + 3 - 1))
    assert "superseded" in superseded and "by abcdef200000" in superseded


async def test_a_beginning_that_several_models_share_or_that_is_too_short_names_none(nc: Client) -> None:
    _, url = await after(nc, *opened(FIRST, 1), *opened(SECOND, 2))
    code, text = await asyncio.to_thread(spar, "why", "abcdef", "--nats", url)
    assert code == 2 and "begins the names of 2 models: abcdef100000 (hex), abcdef200000 (hex)" in text
    code, text = await asyncio.to_thread(spar, "why", "abc", "--nats", url)
    assert code == 2 and "is no lane, task, node, model or gate" in text
