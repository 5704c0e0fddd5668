"""An agent as a process, programs for it, and what it says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
from nats.aio.client import Client

from sparring import clock
from sparring.contracts.base import Order
from sparring.contracts.node_agent import StartTask
from sparring.contracts.parts import TaskSpec
from sparring.contracts.readings import Heartbeat
from sparring.envelope import decode, encode_order
from sparring.log import JetStreamLog
from sparring.server import EmbeddedServer
from sparring.streams import COMMANDS, TELEMETRY
from sparring.testing import eventually

GOOD = """
import hashlib, json, sys, time
job, out = json.load(open(sys.argv[1])), sys.argv[2]
time.sleep(job["params"].get("seconds", 0))
content = json.dumps([job["seed"], job["attempt"]]).encode()
open(out + "/games.json", "wb").write(content)
file = {"name": "games.json", "role": job["params"].get("role", "games"), "sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
file |= job["params"].get("lie", {})
print(json.dumps({"progress": {"done": 1, "of": 2}}), flush=True)
print(json.dumps({"result": {"files": [file], "evidence": {"games": 5, "positions": 50}}}))
"""
SILENT = "print('hello')"
FAMILY = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
open(sys.argv[2] + "/../../pids", "w").write(str(child.pid))
time.sleep(600)
"""
PARTIAL = """
import json, signal, sys, time
def stop(*_):
    print(json.dumps({"result": {"files": [], "evidence": {"steps": 3}}}), flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
print(json.dumps({"progress": {"done": 1, "of": 2}}), flush=True)
time.sleep(600)
"""


class Node:
    """An agent as a process, and what it says."""

    def __init__(self, server: EmbeddedServer, folder: Path, nc: Client) -> None:
        assert server.address is not None
        self.folder, self.nc, self.url = folder, nc, server.address.url
        self.more: tuple[str, ...] = ()
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        argv = [sys.executable, "-m", "node_agent", "--nats", self.url, "--node", "n1", "--data", str(self.folder / "node"),
                "--beat-s", "0.2", "--grace-s", "5", *self.more]  # fmt: skip
        with (self.folder / "agent.log").open("ab") as log:
            self.process = subprocess.Popen(argv, stdout=log, stderr=log)

    async def beat(self, fresh_boot: str = "") -> Heartbeat:
        async def last() -> Heartbeat | None:
            found = await JetStreamLog(self.nc, stream=TELEMETRY).last_of_each("tel.n1.heartbeat")
            beat = Heartbeat.model_validate_json(found[0].body) if found else None
            return beat if beat is not None and beat.boot != fresh_boot else None

        beat = await eventually(last, within_s=30)
        assert beat is not None
        return beat

    async def order(self, order: Order, id: str) -> None:
        subject, headers, body = encode_order(order, id, now=clock.now(), source="test")
        await self.nc.jetstream().publish(subject, body, headers=headers, stream=COMMANDS)

    async def run(
        self, program: str, task: str = "t", attempt: int = 1, kind: str = "selfplay", boot: str = "", **more: Any
    ) -> None:
        file = self.folder / f"{task}.py"
        file.write_text(program)
        values = {"params": {}, "timeout_s": 60} | more
        spec = TaskSpec(kind=kind, lane="hex", seed=1, argv=("python", str(file), "{job}", "{out}"), **values)
        boot = boot or (await self.beat()).boot
        await self.order(
            StartTask(node="n1", boot=boot, task=task, attempt=attempt, spec=spec), f"start-{task}-{attempt}-{id(spec)}"
        )

    async def said(self, kind: type[Order]) -> list[Any]:
        """The agent's orders of that class, each id once."""
        raws = await JetStreamLog(self.nc, stream=COMMANDS).load("cmd.>")
        found = {raw.headers["ce-id"]: decode(raw.subject, raw.headers, raw.body) for raw in raws}
        return [one for one in found.values() if isinstance(one, kind)]

    async def hears(self, kind: type[Order], within_s: float = 30) -> Any:
        async def look() -> Any:
            return await self.said(kind)

        return (await eventually(look, within_s=within_s, what=kind.__name__))[0]


def children(node: Node) -> list[psutil.Process]:
    assert node.process is not None
    return psutil.Process(node.process.pid).children(recursive=True)


def alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
