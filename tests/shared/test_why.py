"""`spar why`, `spar health`, `spar models`: what they say is so, also when little is known or nothing moves."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from nats.aio.client import Client
from stories import after, asked, registered, spar, tell

from sparring.cli.status import NEWEST, _gate, recent
from sparring.contracts.base import Fact
from sparring.contracts.health import ClusterSwitched, HealthScored, NodeJoined, NodeLost
from sparring.contracts.lanes import GateRules, LaneSpec, Step
from sparring.contracts.lifecycle import GateDecided
from sparring.contracts.parts import Artifact, Check, Term
from sparring.contracts.pipeline import (
    CollectionFinished,
    ExportFinished,
    IterationOpened,
    LanePaused,
    LaneRegistered,
    LaneResumed,
    QualityRefused,
    StageExtended,
    StageRetried,
    StepOrdered,
    TrainingStarted,
)
from sparring.contracts.readings import ServiceBeat
from sparring.contracts.sync import BatchAdmitted, BatchQuarantined, GamesRecorded, SyncHastened
from sparring.lane_file import PROGRAMS
from sparring.testing import at

AUTO = ("sync", "export", "train", "evaluate", "promote")


def lane(**more: object) -> LaneRegistered:
    kinds = ("selfplay", *(step for step in PROGRAMS if "auto" in more))
    spec = {"name": "hex", "game": "hex", "commands": dict.fromkeys(kinds, ("x", "{job}", "{out}")), **more}
    return LaneRegistered(lane="hex", spec=LaneSpec.model_validate(spec))


def opened() -> IterationOpened:
    return IterationOpened(iteration="hex-1", lane="hex", number=1, min_positions=1_000, min_new_games=100, games_before=0,
                           positions_before=0, deadline_at=at(600))  # fmt: skip


def training() -> list[Fact]:
    """Up to a training task that runs."""
    shard = Artifact(name="s", role="shard", sha256="a" * 64, bytes=1, url="u")
    here: dict[str, Any] = {"iteration": "hex-1", "lane": "hex", "deadline_at": at(900)}
    return [
        opened(),
        CollectionFinished(new_games=100, new_positions=1_000, window_positions=1_000, **here),
        ExportFinished(dataset="d" * 64, shards=(shard,), positions=1, coverage={}, duplicates=0, quality=1, **here),
        TrainingStarted(task="hex-1-train-1", token=5, attempt=1, **here),
    ]


def by_hand(step: Step) -> Fact:
    return StepOrdered(iteration="hex-1", lane="hex", step=step, by="anna", deadline_at=at(900))


def held() -> Fact:
    check = Check(ok=True, games=1, positions=1, policy_coverage=1.0, mean_plies=10)
    return GamesRecorded(batch="t-1", task="t", attempt=1, node="n1", bytes=1, check=check, lane="hex", games=1, positions=1,
                         model="", sha256="a" * 64)  # fmt: skip


def joined() -> Fact:
    return NodeJoined(node="n1", boot="b", build="1", compatible=True, ephemeral=False, tags=(), kinds=(), machine="n1",
                      cores=8, memory_bytes=2**35, gpus=(), seats=2)  # fmt: skip


def passed(model: str = "a" * 64, number: int = 1) -> list[Fact]:
    return [
        registered(model, number, iteration="hex-1"),
        GateDecided(lane="hex", gate=f"hex-g{number}", candidate=model, baseline="", iteration="hex-1", verdict="passed",
                    reason="accepted_h1", counts=(0, 0, 1, 2, 3), statistics=None, rules=GateRules(), policy="p",
                    settings_hash="s", by_hand=True),
    ]  # fmt: skip


@pytest.mark.parametrize("how", ["off", "paused", "free", "switched"])
async def test_why_a_lane_stands_still_names_the_person_or_the_file_that_holds_it_back(nc: Client, how: str) -> None:
    store, url = await after(nc, lane(enabled=how != "off"))
    if how in ("paused", "free"):
        await tell(store, 2, LanePaused(lane="hex", revision=1, by="anna", reason="the rig moves"))
    if how == "free":
        await tell(store, 3, LaneResumed(lane="hex", revision=2, by="anna"))
    if how == "switched":
        await tell(store, 4, ClusterSwitched(state="paused", before="running", revision=3, by="ben", reason="no power"))
    why, lanes = await asked(url, "why", "hex"), await asked(url, "status")
    said, remedy = {
        "off": ("off: enabled = false", "spar lanes add FILE"),
        "paused": ("paused by anna: the rig moves", "spar resume hex"),
        "switched": ("the cluster is paused by ben: no power", "spar resume\n"),
        "free": ("registered, no iteration yet", "its next iteration"),
    }[how]
    assert said in why and remedy in why
    # a column of a table may break the sentence
    assert how in ("free", "switched") or said[:12] in lanes
    assert ("waits for" in why) == (how == "free")


async def test_a_training_that_is_tried_again_waits_for_a_slot_and_says_what_ended_the_first_attempt(
    nc: Client,
) -> None:
    retried = StageRetried(iteration="hex-1", lane="hex", stage="training", attempt=2, reason="CUDA out of memory",
                           deadline_at=at(2_000))  # fmt: skip
    _, url = await after(nc, lane(), *training(), retried)
    why = await asked(url, "why", "hex")
    assert "waits for  a training slot" in why and "from       training-slots" in why
    assert "attempt    2: CUDA out of memory" in why
    assert "the training task" in await asked(url, "why", "hex", "--at", "5"), "as of then the first attempt ran"


@pytest.mark.parametrize(("auto", "story", "step"), [
    (("sync",), [opened()], "export"),
    (("export",), [opened(), held()], "sync"),
    (("export",), [opened()], ""),
    (("export",), [opened(), held(), SyncHastened(batch="t-1", until=at(600))], ""),
    (("export",), [opened(), held(), joined(), NodeLost(node="n1", boot="b", reason="silent", silent_s=20, limit_s=20)], ""),
    (("sync", "export"), training()[:3], "train"),
    (("sync", "export"), [*training()[:3], by_hand("train")], ""),
    (AUTO[:-1], [*training(), *passed()], "promote"),
    (AUTO, training()[:3], ""),
])  # fmt: skip
async def test_a_step_that_a_lane_takes_by_hand_is_what_it_waits_for(
    nc: Client, auto: tuple[str, ...], story: Sequence[Fact], step: str
) -> None:
    _, url = await after(nc, lane(auto=auto), *story)
    why = await asked(url, "why", "hex")
    assert ("by hand" in why) == bool(step)
    assert not step or f"spar step hex {step}" in why
    assert ("spar reject hex" in why) == (step == "promote")


async def test_a_step_without_a_program_is_no_step_that_a_person_is_asked_to_take(nc: Client) -> None:
    only_plays = LaneRegistered(lane="hex", spec=lane().spec.model_copy(update={"auto": ("sync",)}))
    _, url = await after(nc, only_plays, opened())
    assert "by hand" not in await asked(url, "why", "hex")


async def test_models_that_wait_are_named_whatever_the_iteration_does_and_one_of_them_has_to_be(nc: Client) -> None:
    """One that no iteration made, or whose iteration is over, was to be seen nowhere, and the remedy was refused."""
    spec = lane(auto=AUTO[:-1])
    _, url = await after(nc, spec, opened(), *passed(), *passed("b" * 64, 2))
    why = await asked(url, "why", "hex")
    for model in ("a" * 12, "b" * 12):
        assert f"spar step hex promote --model {model}, or spar reject hex --model {model}" in why
    code, text = await asyncio.to_thread(spar, "step", "hex", "promote", "--nats", url)
    assert code == 2 and "there wait: " + "a" * 12 + ", " + "b" * 12 in text
    code, text = await asyncio.to_thread(spar, "step", "hex", "train", "--model", "a", "--nats", url)
    assert code == 2 and "goes with promote alone" in text
    code, text = await asyncio.to_thread(spar, "reject", "nosuch", "--nats", url)
    assert code == 2 and "not registered" in text


async def test_a_step_that_was_ordered_waits_for_no_person_any_more(nc: Client) -> None:
    extended = StageExtended(iteration="hex-1", lane="hex", stage="training", deadline_at=at(900),
                             reason="a person paused the lane or steps by hand")  # fmt: skip
    story = [*training()[:3], extended, by_hand("train"), training()[3]]
    _, url = await after(nc, lane(auto=("sync",)), *story)
    assert "a person" not in await asked(url, "why", "hex")
    assert "a person" in await asked(url, "why", "hex", "--at", "5")


async def test_collecting_says_how_far_it_is_what_was_refused_and_which_games_count_for_nothing(nc: Client) -> None:
    check = Check(ok=True, games=40, positions=400, policy_coverage=1.0, mean_plies=10)
    games: dict[str, Any] = {"lane": "hex", "games": 40, "positions": 400, "model": "", "sha256": "a" * 64}
    recorded = [
        GamesRecorded(batch=batch, task="t", attempt=1, node="n1", bytes=10, check=check, **games)
        for batch in ("good", "bad")
    ]
    refused = QualityRefused(iteration="hex-1", lane="hex", terms=(Term(name="quality", value=0.41, limit=0.6),),
                             deadline_at=at(600))  # fmt: skip
    _, url = await after(
        nc, lane(), opened(), *recorded, BatchAdmitted(batch="good", url="u", check=check, **games),
        BatchQuarantined(batch="bad", lane="hex", games=40, reason="NaN in the policy"), refused,
    )  # fmt: skip
    why = await asked(url, "why", "hex")
    assert "has        40 of 100 new games, 400 of 1000 positions" in why
    assert "quality 0.41 against 0.60" in why
    assert "unusable   40 games, quarantined since it was opened: NaN in the policy" in why
    assert "NaN in the policy" in await asked(url, "data")


async def test_without_a_node_that_can_work_the_lane_says_so(nc: Client) -> None:
    joined = NodeJoined(node="n1", boot="b", build="1", compatible=False, misfit="contracts differ", ephemeral=False,
                        tags=(), kinds=(), machine="n1", cores=8, memory_bytes=2**35, gpus=(), seats=2)  # fmt: skip
    store, url = await after(nc, lane(), opened())
    assert "no node    can work: none has joined" in await asked(url, "why", "hex")
    await tell(store, 9, joined)
    assert "no node    can work: 1 incompatible" in await asked(url, "why", "hex")
    assert "contracts differ" in await asked(url, "why", "n1")


async def test_what_health_said_last_is_called_that_while_health_is_silent(nc: Client) -> None:
    scored = HealthScored(value=1.0, grade="healthy", before="", terms=())
    _, url = await after(nc, lane(), scored)
    for command in ("health", "alarms", "status"):
        assert "health has not beaten" in await asked(url, command), command
        assert "has not beaten" not in await asked(url, command, "--at", "2"), "a past moment knows no beats"
    beat = ServiceBeat(service="health", replica="0", build="1", contracts="c", leader=True, position=2, log_end=2,
                       handled=0, failed=0, loop_lag_s=0, up_s=1)  # fmt: skip
    await nc.jetstream().publish("tel.svc-health-0.heartbeat", beat.model_dump_json().encode())
    assert "has not beaten" not in await asked(url, "health")


@pytest.mark.parametrize(("row", "text"), [
    ({"verdict": None, "pairs": None}, None),
    ({"verdict": None, "pairs": 40}, "plays: 40 of at most 400 pairs"),
    ({"verdict": "rejected", "pairs": 0, "statistics": None, "reason": "no_games"}, "rejected: no_games"),
    ({"verdict": "passed", "pairs": 100, "statistics": {"elo": 24.6}, "reason": "accepted_h1"},
     "passed +25: accepted_h1, 100 of at most 400 pairs"),
])  # fmt: skip
def test_a_gate_without_games_shows_no_elo(row: dict[str, Any], text: str | None) -> None:
    assert _gate({"most_pairs": 400, "statistics": None, "reason": None, **row}) == text


def test_of_hundreds_of_models_those_are_shown_whose_story_goes_on_and_the_newest_of_the_others() -> None:
    states = ["superseded"] * 15 + ["rejected", "superseded"] * 15 + ["production", *["rejected"] * 40, "evaluating"]
    rows = [
        {"lane": lane, "number": number, "state": state} for lane in ("a", "b") for number, state in enumerate(states)
    ]
    shown = recent(rows)
    for lane in ("a", "b"):
        of_lane = [(row["number"], row["state"]) for row in shown if row["lane"] == lane]
        assert [one for one in of_lane if one[1] in ("production", "evaluating")] == [
            (45, "production"),
            (86, "evaluating"),
        ]
        for state in ("superseded", "rejected"):
            numbers = [number for number, one in enumerate(states) if one == state]
            assert [number for number, one in of_lane if one == state] == numbers[-NEWEST:]
    assert shown == sorted(shown, key=lambda row: (row["lane"], row["number"]))
