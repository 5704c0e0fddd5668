"""The emergency stop reaches every child of every agent within ten seconds, and holds until somebody resumes."""

from __future__ import annotations

import subprocess
from pathlib import Path

import cluster

# services.md: a halt reaches every child process within ten seconds
WITHIN_S = 10.0


def test_a_halt_ends_every_child_of_the_cluster_within_ten_seconds_until_it_is_resumed(tmp_path: Path) -> None:
    (tmp_path / "lanes.toml").write_text(cluster.lane("a_2p", seconds=600) + cluster.lane("b_2p", seconds=600))

    def children() -> int:
        shown = subprocess.run(["pgrep", "-c", "-f", "--", f"{cluster.ENGINE} {tmp_path}"], capture_output=True)
        return int(shown.stdout)

    with cluster.up(tmp_path, "--agents", "3") as one:
        cluster.wait_for(lambda: children() >= 3)
        one.spar("halt", "--reason", "a test")
        cluster.wait_for(lambda: children() == 0, WITHIN_S)
        # the halt is a state, not a moment: the planner looks, and starts nothing
        halted = one.spar("status", "--json")
        assert '"halted"' in halted
        assert children() == 0
        one.spar("resume")
        cluster.wait_for(lambda: children() >= 3)
