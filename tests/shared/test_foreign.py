"""Somebody publishes on `evt.>` past the services: `nats pub`, a script. One such message may not stop the cluster."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nats
import pytest
from typer.testing import CliRunner

from sparring.cli.app import build
from sparring.client import Client
from sparring.contracts.lanes import LaneSpec
from sparring.contracts.pipeline import LanePaused, LaneRegistered, PauseLane, RegisterLane
from sparring.hearing import whole
from sparring.log import JetStreamLog
from sparring.server import EmbeddedServer
from sparring.testing import eventually
from sparring.testing.processes import Replica, app_of
from sparring.topology import declare_topology

GARBAGE = ("evt.pipeline.lane.x.Garbage", "evt.pipeline.lane.hex.LaneRegistered", "evt.nobody.knows.this.Thing")


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    server = EmbeddedServer(tmp_path / "nats")
    yield server.start().url
    server.kill()


async def spar(*arguments: str) -> Any:
    return await asyncio.to_thread(CliRunner().invoke, build(), [*arguments])


async def test_a_message_that_is_no_fact_is_folded_by_nobody_and_found_by_the_doctor(url: str, tmp_path: Path) -> None:
    replica = Replica(app_of("pipeline"), url, tmp_path / "data")
    nc = await nats.connect(url)
    await declare_topology(nc)
    spec = LaneSpec(name="hex", game="hex", commands={"selfplay": ("true", "{job}", "{out}")}, enabled=False)
    try:
        replica.start()
        async with Client(url, outbox=tmp_path / "outbox") as client:
            assert await client.ask(RegisterLane(lane="hex", spec=spec), within_s=60)
            for subject in GARBAGE:
                await nc.jetstream().publish(subject, b"\xffgarbage", stream="EVENTS")
            told = await client.ask(PauseLane(lane="hex", revision=1, by="me"), within_s=60)
        assert [type(one.fact) for one in told] == [LanePaused], "decided on, and appended after, what is no fact"
        facts = [type(one.fact) for one in await whole(JetStreamLog(nc)) if one.fact.entity == "lane"]
        assert facts == [LaneRegistered, LanePaused]
        shown = await spar("lanes", "--nats", url)
        assert shown.exit_code == 0 and "hex" in shown.output
        found = await spar("doctor", "--log", "--nats", url)
        assert all(subject in found.output for subject in GARBAGE) and found.exit_code == 2
        for name in ("all.ndjson", "all.parquet"):
            assert (await spar("export", str(tmp_path / name), "--nats", url)).exit_code == 0
            assert "hex" in (await spar("replay", str(tmp_path / name), "lanes")).output
        assert replica.running
    finally:
        replica.kill()
        await nc.close()
    assert (tmp_path / "data" / "pipeline-0.log").read_text().count("a message that is no fact") == len(GARBAGE)


async def test_a_fact_of_a_newer_build_is_named_by_who_stands_still_before_it(url: str, tmp_path: Path) -> None:
    """What is a fact and can't be folded stops the folds of this build: nothing skips it, and `spar services` says so."""
    replica = Replica(app_of("pipeline"), url, tmp_path / "data")
    nc = await nats.connect(url)
    await declare_topology(nc)
    headers = {"ce-id": "1", "ce-type": "FactOfTomorrow", "ce-source": "pipeline/0"}

    async def said() -> bool:
        shown = await spar("services", "--json", "--nats", url)
        return any("no contract matches" in one["stuck"] for one in json.loads(shown.output)["services"])

    try:
        await nc.jetstream().publish("evt.pipeline.lane.x.FactOfTomorrow", b"{}", stream="EVENTS", headers=headers)
        replica.start()
        await eventually(said, within_s=60)
        argv = [sys.executable, "-m", "sparring.cli", "status", "--nats", url]
        ended = await asyncio.to_thread(subprocess.run, argv, capture_output=True, text=True)
    finally:
        replica.kill()
        await nc.close()
    assert ended.returncode == 4 and "Traceback" not in ended.stderr
    assert "no contract matches evt.pipeline.lane.x.FactOfTomorrow at sequence 1; upgrade this reader" in ended.stderr
