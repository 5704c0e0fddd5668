"""What a person types: an order about what is not there is not sent, a refused one says so to scripts, too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nats.aio.client import Client
from stories import lane_of_pipeline, tell, typed

from sparring.contracts.pipeline import PauseLane
from sparring.contracts.training_slots import LaneHeldBack, SlotClaimed
from sparring.entity_store import EntityStore
from sparring.errors import BadInput
from sparring.log import JetStreamLog
from sparring.streams import COMMANDS
from sparring.testing import at


async def spar(url: str, *words: str) -> Any:
    options = words.index("--") if "--" in words else len(words)
    return await typed(*words[:options], "--nats", url, *words[options:])


async def test_a_refused_order_ends_with_1_and_one_about_nothing_is_not_sent(
    url: str, nc: Client, tmp_path: Path
) -> None:
    games = tmp_path / "games.npz"
    games.write_bytes(b"two games")
    async with lane_of_pipeline(url, tmp_path) as (client, _):
        assert (await spar(url, "pause", "hex")).exit_code == 0
        assert await client.ask(PauseLane(lane="hex", revision=10**15, by="a clock that is ahead"))
        refused = await spar(url, "resume", "hex")
        assert refused.exit_code == 1 and "LaneOrderRefused" in refused.output
        sent = (await nc.jetstream().stream_info(COMMANDS)).state.messages
        for arguments, words in (
            (("pause", "hexx"), "lane = 'hexx' is not known; see spar lanes"),
            (("boost", "hexx"), "lane = 'hexx' is not known"),
            (("drain", "node-9"), "node = 'node-9' is not known; see spar nodes"),
            (("tasks", "cancel", "hex-s1"), "task = 'hex-s1' is not known; see spar tasks"),
            (("record", "games", "hexx", str(games), "--games", "2", "--positions", "9"), "lane = 'hexx' is not known"),
            (("with-slot", "hexx", "--within-s", "5", "--", "true"), "lane = 'hexx' is not known"),
            (("sync", "hexx", "--now"), "lane = 'hexx' is not known"),
        ):
            answer = await spar(url, *arguments)
            assert isinstance(answer.exception, BadInput) and words in str(answer.exception)
        assert (await nc.jetstream().stream_info(COMMANDS)).state.messages == sent


async def test_a_misspelt_group_or_consumer_is_no_empty_dead_letter_queue(url: str, nc: Client) -> None:
    await tell(EntityStore(JetStreamLog(nc)), 1, LaneHeldBack(lane="hex", reason="", until=at(90)))
    assert "no dead letters" in (await spar(url, "dlq", "ls", "--consumer", "sync")).output
    for option, name in (("--group", "0123"), ("--consumer", "sink")):
        for command in (("ls",), ("redrive", "--yes"), ("discard", "--reason", "x", "--yes")):
            answer = await spar(url, "dlq", *command, option, name)
            assert isinstance(answer.exception, BadInput) and f"{option} {name!r} is not" in str(answer.exception)


async def test_events_looks_back_until_it_has_what_is_asked_for(url: str, nc: Client) -> None:
    claimed = SlotClaimed(lane="hex", holder="h", until=at(90), waited_s=0, held=1, limit=3)
    facts = (LaneHeldBack(lane="hex", reason=f"{n}", until=at(90)) for n in range(120))
    await tell(EntityStore(JetStreamLog(nc)), 1, claimed, *facts)
    found = await spar(url, "events", "--type", "SlotClaimed")
    assert found.exit_code == 0 and "SlotClaimed" in found.output and "holder=h" in found.output
    held = await spar(url, "events", "--type", "LaneHeldBack")
    assert held.output.count("LaneHeldBack") == 50 and "reason=119" in held.output
    none = await spar(url, "events", "--type", "SlotExpired")
    assert none.exit_code == 0 and "none in 121 facts" in none.output
    assert "is not known" in str((await spar(url, "events", "--lane", "hexx")).exception)
