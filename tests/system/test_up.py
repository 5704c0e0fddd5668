"""`spar up` that is killed leaves nobody behind, and the next one takes over."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
from pathlib import Path

spec = importlib.util.spec_from_file_location("cluster", Path(__file__).with_name("cluster.py"))
assert spec is not None and spec.loader is not None
cluster = importlib.util.module_from_spec(spec)
spec.loader.exec_module(cluster)


def processes_of(folder: Path) -> list[str]:
    found = subprocess.run(["pgrep", "-f", "--", str(folder)], capture_output=True, text=True)
    return found.stdout.split()


def test_what_a_killed_up_leaves_ends_by_itself_and_the_next_one_goes_on(tmp_path: Path) -> None:
    with cluster.up(tmp_path) as one:
        cluster.wait_for(lambda: "a_2p-1" in one.text)
        os.kill(one.process.pid, signal.SIGKILL)
        # the server alone stays: whoever reads finds the log
        cluster.wait_for(lambda: len(processes_of(one.data)) == 1)
    with cluster.up(tmp_path, "--once", "1") as again:
        assert again.wait() == 0, again.text
    assert processes_of(one.data) == []


def test_an_impatient_person_leaves_nothing_behind(tmp_path: Path) -> None:
    """Ctrl-C again and again while it drains: the server and all processes are gone all the same."""
    with cluster.up(tmp_path, "--agents", "1") as one:
        cluster.wait_for(lambda: "a_2p-1" in one.text)
        one.process.send_signal(signal.SIGINT)
        cluster.wait_for(lambda: "draining" in one.text)
        for _ in range(3):
            one.process.send_signal(signal.SIGINT)
        assert one.wait() == 0, one.text
        assert "everything is on disk" in one.text
    assert processes_of(one.data) == []
