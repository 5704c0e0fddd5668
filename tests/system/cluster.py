"""A whole cluster in a folder: `spar up` as a process, and its log read afterwards."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import nats

from sparring.decider import Recorded
from sparring.hearing import whole
from sparring.local import LocalCluster
from sparring.log import JetStreamLog
from sparring.server import EmbeddedServer

ENGINE = Path(__file__).with_name("tiny_engine.py")


def lane(name: str, seconds: float = 0.2) -> str:
    commands = "\n".join(
        f'{kind} = ["python", "{ENGINE}", "{{job}}", "{{out}}"]' for kind in ("selfplay", "export", "train", "evaluate")
    )
    return f"""
[[lane]]
name = "{name}"
game = "tiny"
task_target_s = 1.0
[lane.commands]
{commands}
[lane.params]
seconds = {seconds}
[lane.iteration]
min_positions = 300
min_new_games = 30
export_cooldown_s = 0
window_iterations = 2
games_per_task = 30
[lane.gate]
pairs_per_task = 40
max_pairs = 400
anchor_pairs = 20
"""


class Up(LocalCluster):
    """A running `spar up` with two lanes of the tiny engine."""

    def __init__(self, folder: Path, *options: str, environ: Mapping[str, str] | None = None) -> None:
        lanes = folder / "lanes.toml"
        if not lanes.exists():
            lanes.write_text(lane("a_2p") + lane("b_2p"))
        super().__init__(folder, lanes, *options, environ=environ)

    def pid_of(self, module: str) -> int:
        """The process of a service of this very cluster. Raises AssertionError when it does not run."""
        found = subprocess.run(["pgrep", "-f", "--", f"-m {module} .*{self.data}"], capture_output=True, text=True)
        pids = [int(one) for one in found.stdout.split()]
        assert pids, f"{module} does not run"
        return pids[0]


@contextmanager
def up(folder: Path, *options: str, environ: Mapping[str, str] | None = None) -> Iterator[Up]:
    one = Up(folder, *options, environ=environ)
    try:
        yield one
    finally:
        one.stop()


@contextmanager
def agent(url: str, folder: Path, node: str, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """One more node; killed at the end, which is faster than asking it."""
    argv = [sys.executable, "-m", "node_agent", "--nats", url, "--node", node, "--data", str(folder / node), *options]
    with (folder / f"{node}.log").open("ab") as log:
        process = subprocess.Popen(argv, stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


async def facts_of(data: Path) -> list[Recorded]:
    """Every fact in the log of a cluster that is down."""
    server = EmbeddedServer(data)
    address = server.start()
    nc = await nats.connect(address.url)
    try:
        return await whole(JetStreamLog(nc))
    finally:
        await nc.close()
        server.stop()


def wait_for(look, within_s: float = 60.0) -> None:  # type: ignore[no-untyped-def]
    """Waits for a fact outside of any event loop."""
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        if look():
            return
        time.sleep(0.1)
    raise AssertionError(f"not within {within_s:.0f} s: {look}")
