"""Ten thousand light agents against the real server and the real services.

By itself: `uv run python benchmarks/load.py --help`; `SPARRING_LOAD_AGENTS` says how many `run.py` starts.

Agents beat every 5 s and pretend to run tasks; a tenth of the seats is kept free by the cluster limit, so that the work
of agents that die can be placed again. Phases: fill, steady, a share of the agents dies, the server is killed and comes
back. CPU is what the processes used (psutil), memory their resident set at the end of a phase.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nats
import psutil
from light_agents import LightAgents, percentile
from nats.aio.client import Client as Nats
from rows import Row, at_most, plain

from sparring.client import Client
from sparring.contracts.lanes import LaneSpec
from sparring.contracts.pipeline import RegisterLane
from sparring.log import JetStreamLog
from sparring.server import EmbeddedServer, free_port
from sparring.streams import EVENTS
from sparring.topology import declare_topology

SERVICES = ("health", "lifecycle", "pipeline", "selfplay-orch", "sync", "training-slots")
BEAT_S = 5.0
MIB = 1024**2


@dataclass
class Cluster:
    """The processes under load."""

    folder: Path
    server: EmbeddedServer
    services: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, limit: int) -> None:
        assert self.server.address is not None
        environ = os.environ | {"SPARRING_SELFPLAY_ORCH__KINDS": json.dumps(
            {"selfplay": {"cluster": limit, "cluster_per_node": 0}})}  # fmt: skip
        for name in SERVICES:
            argv = [sys.executable, "-m", name.replace("-", "_"), "--nats", self.server.address.url, "--data",
                    str(self.folder / "services")]  # fmt: skip
            with (self.folder / f"{name}.log").open("ab") as log:
                self.services[name] = subprocess.Popen(argv, env=environ, stdout=log, stderr=log)

    def processes(self) -> dict[str, psutil.Process]:
        assert self.server.process is not None
        pids = {name: one.pid for name, one in self.services.items()} | {"nats-server": self.server.process.pid}
        return {name: psutil.Process(pid) for name, pid in pids.items()}

    def stop(self) -> None:
        for one in self.services.values():
            one.terminate()
        for one in self.services.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                one.wait(20)
            one.kill()
        self.server.kill()


@dataclass
class Meter:
    """What was used between two moments."""

    cluster: Cluster
    began: float = 0.0
    cpu: dict[str, float] = field(default_factory=dict)

    def begin(self) -> Meter:
        self.began = time.monotonic()
        self.cpu = {name: _cpu_s(one) for name, one in self.cluster.processes().items()}
        return self

    def read(self) -> dict[str, dict[str, float]]:
        """Cores used and MiB resident, by process."""
        seconds = time.monotonic() - self.began
        found = {}
        for name, one in self.cluster.processes().items():
            used = (_cpu_s(one) - self.cpu.get(name, 0.0)) / seconds
            found[name] = {"cores": round(used, 3), "mib": round(one.memory_info().rss / MIB)}
        return found


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


async def _expected(_: Exception) -> None:
    """The server is killed on purpose; what a lost connection costs is a figure, not a message."""


async def _until(look: Callable[[], bool], within_s: float) -> float:
    """Seconds until it holds; nan when it does not in time."""
    began = time.monotonic()
    while time.monotonic() - began < within_s:
        if look():
            return time.monotonic() - began
        await asyncio.sleep(0.05)
    return float("nan")


async def _log_size(nc: Nats) -> tuple[int, int]:
    state = (await nc.jetstream(timeout=10).stream_info(EVENTS)).state
    return int(state.last_seq), int(state.bytes)


async def _register(url: str, folder: Path, task_s: float) -> None:
    spec = LaneSpec(name="load_2p", game="load", task_target_s=task_s, commands={"selfplay": ("true", "{job}", "{out}")},
                    auto=("sync",))  # fmt: skip
    async with Client(url, outbox=folder / "outbox") as client:
        await client.send(RegisterLane(lane=spec.name, spec=spec))


async def _lost_outcomes(nc: Nats, agents: LightAgents, within_s: float = 60.0) -> int:
    """Tasks that their agent reported as finished and whose owner never said so; while some still are said it goes on."""
    reported, recorded, after = set(agents.seen.finished), set[str](), 0
    end = time.monotonic() + within_s
    while reported - recorded and time.monotonic() < end:
        raws = await JetStreamLog(nc, timeout_s=30).load("evt.selfplay-orch.task.*.TaskFinished", after)
        found = {raw.subject.split(".")[3] for raw in raws}
        if found & (reported - recorded):
            end = time.monotonic() + within_s
        recorded |= found
        after = raws[-1].sequence if raws else after
        await asyncio.sleep(0.2)
    return len(reported - recorded)


async def _steady(nc: Nats, cluster: Cluster, agents: LightAgents, seconds: float) -> dict[str, Any]:
    seen, meter = agents.seen, Meter(cluster).begin()
    waits, finished, beats, began = len(seen.waits_s), len(seen.finished), seen.beats, time.monotonic()
    facts, size = await _log_size(nc)
    await asyncio.sleep(seconds)
    spent, used = time.monotonic() - began, meter.read()
    facts, size = (now - then for now, then in zip(await _log_size(nc), (facts, size), strict=True))
    fresh = seen.waits_s[waits:]
    return {
        "seconds": round(spent, 1),
        "beats_per_s": round((seen.beats - beats) / spent, 1),
        "finished_per_s": round((len(seen.finished) - finished) / spent, 2),
        "assigned": len(fresh),
        "free_places": len(seen.freed),
        "assignment_p50_ms": round(1000 * percentile(fresh, 0.5), 1),
        "assignment_p99_ms": round(1000 * percentile(fresh, 0.99), 1),
        "facts_per_s": round(facts / spent, 1),
        "log_bytes_per_s": round(size / spent),
        "used": used,
    }


async def _deaths(agents: LightAgents, share: float) -> dict[str, Any]:
    began = time.monotonic()
    tasks = agents.kill(share)
    spent = await _until(lambda: not agents.missing, 180)
    return {
        "tasks": len(tasks),
        "placed_again": len(agents.seen.placed_again),
        "all_placed_again_s": round(spent, 1),
        "first_placed_again_s": round(min(agents.seen.placed_again.values(), default=began) - began, 1),
    }


async def _storm(nc: Nats, cluster: Cluster, agents: LightAgents, limit: int) -> dict[str, Any]:
    server, seen = cluster.server, agents.seen
    assert server.address is not None
    server.port = int(server.address.url.rpartition(":")[2])
    server.kill()
    await asyncio.sleep(5.0)
    began = time.monotonic()
    server.start(120)
    healthy = time.monotonic() - began
    connected = healthy + await _until(lambda: nc.is_connected, 60)
    at, starts, living = seen.beats, seen.started, sum(one.alive for one in agents.agents.values())
    all_beat = connected + await _until(lambda: seen.beats - at >= living, 60)
    flow = await _until(lambda: seen.started > starts, 120)
    full = await _until(lambda: agents.running >= 0.99 * min(limit, living), 240)
    return {
        "server_healthy_s": round(healthy, 1),
        "agents_connected_s": round(connected, 1),
        "all_beat_s": round(all_beat, 1),
        "first_start_s": round(all_beat + flow, 1),
        "places_full_s": round(all_beat + flow + full, 1),
    }


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Runs the phases; the figures by phase."""
    folder = Path(tempfile.mkdtemp(prefix="sparring-load-", dir=options.scratch))
    server = EmbeddedServer(folder, port=free_port())
    cluster, stopping = Cluster(folder, server), asyncio.Event()
    url, limit = server.start().url, round(options.agents * (1 - options.spare))
    nc = await nats.connect(
        url, max_reconnect_attempts=-1, reconnect_time_wait=0.5, pending_size=64 * MIB, error_cb=_expected
    )
    await declare_topology(nc)
    agents = LightAgents(nc, options.agents, task_s=options.task_s, beat_s=BEAT_S)
    found: dict[str, Any] = {"agents": options.agents, "task_s": options.task_s, "places": limit}
    running = asyncio.create_task(agents.run(stopping))
    this = asyncio.current_task()
    assert this is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, this.cancel)
    try:
        meter = Meter(cluster)
        cluster.start(limit)
        meter.begin()
        await _register(url, folder, options.task_s)
        spent = await _until(lambda: agents.running >= 0.98 * limit, options.fill_s)
        found["fill"] = {"seconds": round(spent, 1), "running": agents.running, "used": meter.read()}
        _say(found)
        await asyncio.sleep(options.settle_s)
        agents.seen.freed.clear()
        found["steady"] = await _steady(nc, cluster, agents, options.seconds)
        _say(found)
        if options.kill:
            found["deaths"] = await _deaths(agents, options.kill)
            _say(found)
        if options.storm:
            found["storm"] = await _storm(nc, cluster, agents, limit)
        found["started_twice"] = agents.seen.doubled
        found["orders_repeated"] = agents.seen.repeated
        found["outcomes_lost"] = await _lost_outcomes(nc, agents)
    finally:
        try:
            stopping.set()
            await running
            await nc.close()
        finally:
            # a second signal interrupts the waiting above; no process may stay behind then either
            cluster.stop()
            if options.keep:
                print(f"files stay in {folder}")
            else:
                shutil.rmtree(folder, ignore_errors=True)
    return found


def rows() -> list[Row]:
    """The figures beside their targets."""
    options = _parser().parse_args(["--agents", os.environ.get("SPARRING_LOAD_AGENTS", "10000")])
    found = asyncio.run(measure(options))
    steady, deaths, storm = found["steady"], found.get("deaths", {}), found.get("storm", {})
    used = {name: one["cores"] for name, one in steady["used"].items() if name != "nats-server"}
    return [
        plain("agents", found["agents"], "agents"),
        plain("beats", steady["beats_per_s"], "/s"),
        plain("tasks finished", steady["finished_per_s"], "/s"),
        at_most("assignment, p50", steady["assignment_p50_ms"], "ms", 50),
        at_most("assignment, p99", steady["assignment_p99_ms"], "ms", 50),
        at_most("CPU of all services", sum(used.values()), "cores", 1),
        *(plain(f"CPU of {name}", one["cores"], "cores") for name, one in steady["used"].items()),
        *(plain(f"memory of {name}", one["mib"], "MiB") for name, one in steady["used"].items()),
        plain("log", steady["facts_per_s"], "facts/s"),
        plain("log", steady["log_bytes_per_s"], "bytes/s"),
        at_most("a tenth dies: all placed again", deaths["all_placed_again_s"], "s", 30),
        plain("server killed and back: all beat", storm["all_beat_s"], "s"),
        plain("server killed and back: first order to start", storm["first_start_s"], "s"),
        at_most("outcomes lost", found["outcomes_lost"], "tasks", 0),
        at_most("tasks started twice", found["started_twice"], "tasks", 0),
    ]


def _say(found: dict[str, Any]) -> None:
    name = list(found)[-1]
    print(name, json.dumps(found[name]), file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agents", type=int, default=10_000)
    parser.add_argument("--task-s", type=float, default=270.0)
    parser.add_argument("--spare", type=float, default=0.15, help="share of the seats that stays free")
    parser.add_argument("--seconds", type=float, default=60.0, help="length of the steady phase")
    parser.add_argument("--settle-s", type=float, default=10.0)
    parser.add_argument("--fill-s", type=float, default=600.0)
    parser.add_argument("--kill", type=float, default=0.1, help="share of the agents that dies at once; 0: none")
    parser.add_argument("--storm", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--scratch", default=None, help="where files go; a disk, not memory")
    parser.add_argument("--keep", action="store_true")
    return parser


def main() -> None:
    print(json.dumps(asyncio.run(measure(_parser().parse_args())), indent=1))


if __name__ == "__main__":
    main()
