"""`spar up` that is killed leaves nobody behind, and the next one takes over."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import cluster
import pytest

import sparring
from sparring.contracts.sync import BatchAdmitted
from sparring.errors import BadInput


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


def test_a_users_test_gets_a_whole_cluster_and_leaves_nothing_behind(tmp_path: Path) -> None:
    lanes = tmp_path / "lanes.toml"
    lanes.write_text(cluster.lane("a_2p"))
    with sparring.local_cluster(lanes, environ={"SPARRING_SYNC__KEEP_S": "77"}) as one:
        folder = one.data
        with one.connect() as client:
            for fact in client.subscribe(BatchAdmitted, since=1):
                assert fact.fact.lane == "a_2p"
                break
        assert "77" in one.spar("settings", "sync")
    assert one.process.poll() == 0, one.text
    assert not folder.exists()
    left = subprocess.run(["pgrep", "-f", "--", str(folder)], capture_output=True, text=True).stdout
    assert left == ""
    with pytest.raises(BadInput, match="lanes"), sparring.local_cluster(tmp_path / "no lanes.toml"):
        pass
