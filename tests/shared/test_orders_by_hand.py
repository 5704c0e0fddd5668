"""What a person types: an order about what is not there is not sent, a refused one says so to scripts, too."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import nats
import pytest
from typer.testing import CliRunner

from sparring import clock
from sparring.cli.app import build
from sparring.client import Client
from sparring.contracts.lanes import LaneSpec
from sparring.contracts.pipeline import PauseLane, RegisterLane
from sparring.contracts.training_slots import LaneHeldBack, SlotClaimed
from sparring.envelope import Envelope, encode
from sparring.errors import BadInput
from sparring.log import JetStreamLog
from sparring.log.interface import Expect, Outgoing
from sparring.server import EmbeddedServer
from sparring.streams import COMMANDS
from sparring.subjects import Ref
from sparring.testing import at
from sparring.testing.processes import Replica, app_of
from sparring.topology import declare_topology


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    server = EmbeddedServer(tmp_path / "nats")
    yield server.start().url
    server.kill()


async def spar(url: str, *arguments: str) -> Any:
    return await asyncio.to_thread(CliRunner().invoke, build(), [*arguments, "--nats", url])


async def test_a_refused_order_ends_with_1_and_one_about_nothing_is_not_sent(url: str, tmp_path: Path) -> None:
    replica = Replica(app_of("pipeline"), url, tmp_path / "data")
    nc = await nats.connect(url)
    await declare_topology(nc)
    spec = LaneSpec(name="hex", game="hex", commands={"selfplay": ("true", "{job}", "{out}")}, enabled=False)
    try:
        replica.start()
        async with Client(url, outbox=tmp_path / "outbox") as client:
            assert await client.ask(RegisterLane(lane="hex", spec=spec), within_s=60)
        assert (await spar(url, "pause", "hex")).exit_code == 0
        async with Client(url, outbox=tmp_path / "outbox") as client:
            assert await client.ask(PauseLane(lane="hex", revision=10**15, by="a clock that is ahead"))
        refused = await spar(url, "resume", "hex")
        assert refused.exit_code == 1 and "LaneOrderRefused" in refused.output
        sent = (await nc.jetstream().stream_info(COMMANDS)).state.messages
        for arguments, words in (
            (("pause", "hexx"), "lane = 'hexx' is not known; see spar lanes"),
            (("boost", "hexx"), "lane = 'hexx' is not known"),
            (("drain", "node-9"), "node = 'node-9' is not known; see spar nodes"),
            (("tasks", "cancel", "hex-s1"), "task = 'hex-s1' is not known; see spar tasks"),
        ):
            answer = await spar(url, *arguments)
            assert isinstance(answer.exception, BadInput) and words in str(answer.exception)
        assert (await nc.jetstream().stream_info(COMMANDS)).state.messages == sent
    finally:
        replica.kill()
        await nc.close()


async def test_events_looks_back_until_it_has_what_is_asked_for(url: str) -> None:
    nc = await nats.connect(url)
    await declare_topology(nc)
    claimed = SlotClaimed(lane="hex", holder="h", until=at(90), waited_s=0, held=1, limit=3)
    facts = [claimed, *(LaneHeldBack(lane="hex", reason=f"{n}", until=at(90)) for n in range(120))]
    batch = [Outgoing(*encode(fact, Envelope(f"f{n}", "test", clock.now())), None) for n, fact in enumerate(facts)]
    first = replace(batch[0], expect=Expect(Ref("training-slots", "pool", "main").pattern, 0))
    await JetStreamLog(nc).append([first, *batch[1:]], "batch")
    await nc.close()
    found = await spar(url, "events", "--type", "SlotClaimed")
    assert found.exit_code == 0 and "SlotClaimed" in found.output and "holder=h" in found.output
    held = await spar(url, "events", "--type", "LaneHeldBack")
    assert held.output.count("LaneHeldBack") == 50 and "reason=119" in held.output
    none = await spar(url, "events", "--type", "SlotExpired")
    assert none.exit_code == 0 and "none in 121 facts" in none.output
    assert "is not known" in str((await spar(url, "events", "--lane", "hexx")).exception)
