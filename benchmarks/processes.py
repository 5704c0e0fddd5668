"""Memory and idle CPU of every process of `spar up`.

`spar up --manual` with one agent and no lane that may play: all services run, nothing is to do. Memory is PSS (pages that
several processes share count once in all) with RSS beside it; CPU is the share of one core over the measured time.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from rows import Row, at_most, ratio_of

SETTLE_S, MEASURE_S = 25.0, 30.0
LANES = """
[[lane]]
name = "quiet_2p"
game = "none"
enabled = false
[lane.commands]
selfplay = ["true", "{job}", "{out}"]
export = ["true", "{job}", "{out}"]
train = ["true", "{job}", "{out}"]
evaluate = ["true", "{job}", "{out}"]
"""
MODULES = ("health", "lifecycle", "pipeline", "selfplay_orch", "sync", "training_slots", "node_agent")


def role(process: psutil.Process) -> str:
    """Which part of the cluster the process is."""
    argv = process.cmdline()
    if argv and argv[0].endswith("nats-server"):
        return "nats-server"
    return next((name for name in MODULES if name in argv), "spar up")


def measured(root: psutil.Process) -> dict[str, tuple[float, float, float]]:
    """Per part: PSS and RSS in MB, CPU in percent of a core."""
    family = [root, *root.children(recursive=True)]
    before = {one: sum(one.cpu_times()[:2]) for one in family}
    began = time.monotonic()
    time.sleep(MEASURE_S)
    found: dict[str, tuple[float, float, float]] = {}
    for one, spent in before.items():
        with contextlib.suppress(psutil.NoSuchProcess):
            memory, cpu = one.memory_full_info(), sum(one.cpu_times()[:2]) - spent
            old = found.get(role(one), (0.0, 0.0, 0.0))
            share = 100 * cpu / (time.monotonic() - began)
            found[role(one)] = (old[0] + memory.pss / 1e6, old[1] + memory.rss / 1e6, old[2] + share)
    return found


def rows() -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        (home / "lanes.toml").write_text(LANES)
        argv = [sys.executable, "-m", "sparring.cli", "up", "--data", str(home / "data"), "--lanes",
                str(home / "lanes.toml"), "--manual", "--agents", "1"]  # fmt: skip
        with (home / "up.log").open("wb") as log:
            up = subprocess.Popen(
                argv, stdout=log, stderr=log, env=os.environ | {"XDG_CACHE_HOME": folder}, start_new_session=True
            )
        try:
            time.sleep(SETTLE_S)
            assert up.poll() is None, (home / "up.log").read_text()
            found = measured(psutil.Process(up.pid))
        finally:
            up.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                up.wait(60)
            if up.poll() is None:
                os.killpg(up.pid, signal.SIGKILL)
    missing = {*MODULES, "nats-server"} - set(found)
    assert not missing, f"not running: {missing}"
    plane = [one for name, one in found.items() if name not in ("node_agent", "spar up")]
    result = [
        at_most("control plane (six services and the server), PSS", sum(one[0] for one in plane), "MB", 500),
        at_most("control plane, idle", sum(one[2] for one in plane), "% of a core", 5),
    ]
    for name, (pss, rss, cpu) in sorted(found.items()):
        result.append(ratio_of(f"{name}, memory", pss, "MB", rss, "RSS"))
        result.append(Row(f"{name}, idle", cpu, "% of a core"))
    return result
