"""Jobs: a mistake names field, value and remedy, and the exit code says whose it is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sparring_hex.job import BadJob, read_job

GOOD: dict[str, Any] = {"seed": 1, "game": "hex", "game_params": {"board_size": 4}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": None}, r"seed = None: write a whole number"),
        ({"seed": "7"}, r"seed = '7': write a whole number"),
        ({"game": ""}, r"game = '': write a text"),
        ({"kind": "export"}, r"kind = 'export': this program does 'selfplay'; run sparring_hex\.export"),
        ({"params": {"width": 1.5}}, r"params\.width = 1\.5: write a whole number from 4 to 4096"),
        ({"params": {"noise": 2}}, r"params\.noise = 2: write a number from 0 to 1"),
        ({"params": {"lr": float("nan")}}, r"params\.lr = nan: write a number"),
        ({"params": {"l2": True}}, r"params\.l2 = True: write a number"),
        ({"params": {"widht": 3}}, r"params\.widht = 3: no such hyper-parameter; known are width"),
        ({"inputs": {"model": "/nowhere"}}, r"inputs\.model = '/nowhere': no such file; write the path"),
        ({"work": []}, r"work = \[\]: write a JSON object"),
    ],
)
def test_a_bad_job_names_the_field_its_value_and_the_remedy(change: dict[str, Any], message: str) -> None:
    with pytest.raises(BadJob, match=message):
        read_job({**GOOD, **change}, "selfplay")


def test_counts_of_work_are_checked_when_they_are_needed() -> None:
    with pytest.raises(BadJob, match=r"work\.games is missing"):
        read_job(GOOD, "selfplay").count("games", low=1)
    with pytest.raises(BadJob, match=r"work\.games = 0: write a whole number from 1"):
        read_job({**GOOD, "work": {"games": 0}}, "selfplay").count("games", low=1)


def test_what_a_job_leaves_open_has_the_boards_defaults() -> None:
    job = read_job({**GOOD, "params": {"width": 8}}, "selfplay")
    assert (job.whole("width"), job.whole("temperature_plies"), job.params["dirichlet_alpha"]) == (8, 4, 0.7)
    assert job.params["uses_per_position"] == 32


def test_a_bad_job_ends_with_exit_code_2_and_no_result(tmp_path: Path) -> None:
    (tmp_path / "job.json").write_text(json.dumps({**GOOD, "work": {"games": -3}}))
    argv = [sys.executable, "-m", "sparring_hex.selfplay", "--job", str(tmp_path / "job.json"), "--out", str(tmp_path)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "work.games = -3" in done.stderr


def test_one_process_is_one_thread_of_linear_algebra() -> None:
    code = "import sparring_hex, os; print(os.environ['OPENBLAS_NUM_THREADS'], os.environ['OMP_NUM_THREADS'])"
    env = {**os.environ, "OMP_NUM_THREADS": "16"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env, timeout=60)
    assert done.stdout.split() == ["1", "1"]


def test_the_workload_knows_nothing_of_the_coordination() -> None:
    code = (
        "import sys, sparring_hex.bench, sparring_hex.verify; "
        "print([m for m in sys.modules if m.split('.')[0] in ('sparring', 'nats', 'faststream', 'pydantic')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
