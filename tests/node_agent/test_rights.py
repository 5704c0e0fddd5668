"""Exclusive work holds its right from the first input to the last file that is stored, and stops wherever it is."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client
from node_here import full, node, task

from node_agent import agent, work
from node_agent.agent import Agent
from node_agent.cache import Cache
from node_agent.orders import Orders
from node_agent.roster import Running
from node_agent.settings import parse
from node_agent.slot import guard
from node_agent.work import run_task
from sparring import clock
from sparring.artifacts import StoreUnavailable
from sparring.contracts.parts import Artifact
from sparring.contracts.selfplay_orch import ReportTaskFailed, ReportTaskFinished
from sparring.contracts.training_slots import PreemptionAsked
from sparring.ending import ended
from sparring.envelope import Envelope, encode
from sparring.streams import EVENTS
from sparring.testing import eventually

MODEL = Artifact(name="model", role="model", sha256="a" * 64, bytes=1, url="u")
SAVES = """
import json, signal, sys, time
def stop(*_):
    open(sys.argv[2] + "/partial", "w").write("x")
    print(json.dumps({"result": {"files": [{"name": "partial"}], "evidence": {"steps": 3}}}), flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
open(sys.argv[2] + "/../../ready", "w").close()
time.sleep(600)
"""


class Store:
    """Gets and puts end when they are let; what `fails` holds is raised first."""

    def __init__(self) -> None:
        self.go, self.fails, self.puts, self.gets = asyncio.Event(), list[Exception](), 0, 0

    async def put(self, path: Path, sha256: str) -> str:
        self.puts += 1
        if self.fails:
            raise self.fails.pop()
        await self.go.wait()
        return f"nats://ARTIFACTS/{sha256}"

    async def get(self, url: str, to: Path) -> None:
        self.gets += 1
        await self.go.wait()
        to.write_text("x")


class Training:
    """A node with one exclusive task under way; `held` says whether its right is watched."""

    def __init__(self, folder: Path, **more: Any) -> None:
        self.agent, self.store, self.held = node(folder), Store(), False
        self.agent.store, self.agent.cache = self.store, Cache(folder / "cache", self.store, 1_000_000)  # type: ignore[arg-type]
        self.errands = set[asyncio.Task[None]]()
        self.agent.go = lambda errand: self.errands.add(asyncio.create_task(errand))
        self.agent.guard, self.orders = self._guard, Orders(self.agent)
        self.running = Running(task(folder, kind="train", exclusive=True, **more))
        self.agent.running[self.running.key] = self.running
        self.under_way = asyncio.create_task(run_task(self.agent, self.running))

    async def _guard(self, _: Running) -> None:
        self.held = True
        try:
            await asyncio.Event().wait()
        finally:
            self.held = False

    async def over(self) -> Any:
        await self.under_way
        await ended(*self.errands)
        assert not self.held
        return self.agent.spool.said[-1]


async def test_the_right_is_held_while_inputs_are_fetched_and_results_are_stored(tmp_path: Path) -> None:
    one = Training(tmp_path, inputs={"model": (MODEL,)})
    await eventually(lambda: one.store.gets)
    assert one.held
    one.store.go.set()
    await eventually(lambda: one.running.child)
    assert one.held
    one.store.go.clear()
    await eventually(lambda: one.store.puts)
    assert one.held and one.running.child is None
    one.store.go.set()
    assert isinstance(await one.over(), ReportTaskFinished)


async def test_who_loses_the_right_while_inputs_are_fetched_stops_at_once(tmp_path: Path) -> None:
    one = Training(tmp_path, inputs={"model": (MODEL,)})
    await eventually(lambda: one.store.gets)
    one.orders.stop("t-1", "the training slot is lost", 0.0)
    report = await one.over()
    assert isinstance(report, ReportTaskFailed) and report.reason == "the training slot is lost"
    assert not one.agent.cache._in_use


async def test_who_is_asked_to_give_way_while_inputs_are_fetched_has_nothing_to_save(tmp_path: Path) -> None:
    one = Training(tmp_path, inputs={"model": (MODEL,)})
    await eventually(lambda: one.store.gets)
    one.orders.stop("t-1", "asked to give way", 60.0)
    assert (await one.over()).reason == "asked to give way"


async def test_who_loses_the_right_while_results_are_stored_stops_at_once(tmp_path: Path) -> None:
    one = Training(tmp_path)
    await eventually(lambda: one.store.puts)
    one.orders.stop("t-1", "the training slot is lost", 0.0)
    report = await one.over()
    assert isinstance(report, ReportTaskFailed) and report.reason == "the training slot is lost"


async def test_what_is_there_when_the_task_is_asked_to_stop_is_stored_within_the_grace_time(tmp_path: Path) -> None:
    one = Training(tmp_path, program=SAVES)
    await eventually((tmp_path / "work" / "ready").exists)
    one.orders.stop("t-1", "the node drains", 60.0)
    await eventually(lambda: one.store.puts)
    one.store.go.set()
    report = await one.over()
    assert isinstance(report, ReportTaskFinished) and [file.name for file in report.files] == ["partial"]


async def test_a_store_that_takes_nothing_for_a_while_costs_no_finished_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "AGAIN_S", 0.001)
    one = Training(tmp_path)
    one.store.fails = [OSError(116, "Stale file handle"), OSError(28, "No space left"), StoreUnavailable("u")]
    one.agent.cache.keep = full
    one.store.go.set()
    assert isinstance(await one.over(), ReportTaskFinished)
    assert one.store.puts == 4


async def test_a_store_that_takes_nothing_keeps_no_stopped_task(tmp_path: Path) -> None:
    one = Training(tmp_path)
    one.store.fails = [OSError(28, "No space left")] * 9
    await eventually(lambda: one.store.puts)
    one.orders.stop("t-1", "halted", 0.0)
    assert (await one.over()).reason == "halted"


async def test_a_program_that_is_killed_before_it_runs_does_not_run(tmp_path: Path) -> None:
    one = Training(tmp_path, program="import time; time.sleep(600)")
    await eventually(lambda: one.running.child)
    one.orders.stop("t-1", "the training slot is lost", 0.0)
    assert "the training slot is lost" in (await one.over()).reason


async def test_who_has_no_program_yet_hears_that_it_is_asked_to_give_way(nc: Client, tmp_path: Path) -> None:
    running, told = Running(task(tmp_path, kind="train", exclusive=True, slot_token=1)), list[tuple[str, float]]()
    settings = parse(["--node", "n1"], {})
    watching = asyncio.create_task(guard(nc, settings, running, lambda reason, grace_s: told.append((reason, grace_s))))
    asked = PreemptionAsked(lane="hex", token=1, holder="h", by="me", reason="demo", grace_s=30, until=clock.now())
    subject, headers, body = encode(asked, Envelope("asked", "test", clock.now()))
    await nc.jetstream().publish("evt.test.first.one.Fact", b"{}", stream=EVENTS)
    await nc.jetstream().publish(subject, body, headers=headers, stream=EVENTS)
    await eventually(lambda: told)
    assert told == [("asked to give way by me: demo", 30.0)]
    await ended(watching)


async def test_exclusive_work_whose_right_cannot_be_watched_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def breaks(*_: Any) -> None:
        raise KeyError("token")

    monkeypatch.setattr(agent, "guard", breaks)
    one, stopped = Agent(parse(["--node", "n1", "--data", str(tmp_path)], {})), list[tuple[str, str, float]]()
    one.nc = None  # type: ignore[assignment]
    monkeypatch.setattr(one.orders, "stop", lambda *told: stopped.append(told))
    await one.guard(Running(task(tmp_path, kind="train", exclusive=True)))
    assert stopped == [("t-1", "its right can't be watched: KeyError: 'token'", 0.0)]
