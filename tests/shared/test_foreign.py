"""Somebody publishes on `evt.>` past the services: `nats pub`, a script. One such message may not stop the cluster."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

from nats.aio.client import Client
from stories import lane_of_pipeline, typed

from sparring.contracts.pipeline import LanePaused, LaneRegistered, PauseLane
from sparring.hearing import whole
from sparring.log import JetStreamLog
from sparring.testing import eventually
from sparring.testing.processes import Replica, app_of

GARBAGE = ("evt.pipeline.lane.x.Garbage", "evt.pipeline.lane.hex.LaneRegistered", "evt.nobody.knows.this.Thing")


async def test_a_message_that_is_no_fact_is_folded_by_nobody_and_found_by_the_doctor(
    url: str, nc: Client, tmp_path: Path
) -> None:
    async with lane_of_pipeline(url, tmp_path) as (client, replica):
        for subject in GARBAGE:
            await nc.jetstream().publish(subject, b"\xffgarbage", stream="EVENTS")
        told = await client.ask(PauseLane(lane="hex", revision=1, by="me"), within_s=60)
        assert [type(one.fact) for one in told] == [LanePaused], "decided on, and appended after, what is no fact"
        facts = [type(one.fact) for one in await whole(JetStreamLog(nc)) if one.fact.entity == "lane"]
        assert facts == [LaneRegistered, LanePaused]
        shown = await typed("lanes", "--nats", url)
        assert shown.exit_code == 0 and "hex" in shown.output
        found = await typed("doctor", "--log", "--nats", url)
        assert all(subject in found.output for subject in GARBAGE) and found.exit_code == 2
        for name in ("all.ndjson", "all.parquet"):
            assert (await typed("export", str(tmp_path / name), "--nats", url)).exit_code == 0
            assert "hex" in (await typed("replay", str(tmp_path / name), "lanes")).output
        assert replica.running
    assert (tmp_path / "data" / "pipeline-0.log").read_text().count("a message that is no fact") == len(GARBAGE)


async def test_a_fact_of_a_newer_build_is_named_by_who_stands_still_before_it(
    url: str, nc: Client, tmp_path: Path
) -> None:
    """What is a fact and can't be folded stops the folds of this build: nothing skips it, and `spar services` says so."""
    replica = Replica(app_of("pipeline"), url, tmp_path / "data")
    headers = {"ce-id": "1", "ce-type": "FactOfTomorrow", "ce-source": "pipeline/0"}

    async def said() -> bool:
        shown = await typed("services", "--json", "--nats", url)
        return any("no contract matches" in one["stuck"] for one in json.loads(shown.output)["services"])

    try:
        await nc.jetstream().publish("evt.pipeline.lane.x.FactOfTomorrow", b"{}", stream="EVENTS", headers=headers)
        replica.start()
        await eventually(said, within_s=60)
        argv = [sys.executable, "-m", "sparring.cli", "status", "--nats", url]
        ended = await asyncio.to_thread(subprocess.run, argv, capture_output=True, text=True)
    finally:
        replica.kill()
    assert ended.returncode == 4 and "Traceback" not in ended.stderr
    assert "no contract matches evt.pipeline.lane.x.FactOfTomorrow at sequence 1; upgrade this reader" in ended.stderr
