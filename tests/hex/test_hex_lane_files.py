"""The example lane files: they load, and their programs do what the protocol says."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sparring.contracts.lanes import LaneSpec
from sparring.lane_file import load_lanes
from sparring_hex.job import read_job

ROOT = Path(__file__).resolve().parents[2]
HEX = load_lanes(ROOT / "examples/hex/lanes.toml")
(DICE,) = load_lanes(ROOT / "examples/dice/lane.toml")


def call(lane: LaneSpec, kind: str, job: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Runs a lane's program as a node does, and gives its result line."""
    folder.mkdir()
    (folder / "job.json").write_text(json.dumps(job))
    names = {"{job}": str(folder / "job.json"), "{out}": str(folder)}
    argv = [names.get(part, part) for part in lane.commands[kind]]
    argv[0] = sys.executable
    done = subprocess.run(argv, capture_output=True, text=True, check=True, cwd=ROOT, timeout=60)
    results = [line["result"] for line in map(json.loads, done.stdout.splitlines()) if "result" in line]
    (result,) = results
    for file in result["files"]:
        content = (folder / file["name"]).read_bytes()
        assert (file["sha256"], file["bytes"]) == (hashlib.sha256(content).hexdigest(), len(content))
    found: dict[str, Any] = result
    return found


def test_two_boards_are_enabled_and_one_game_can_be_switched_on() -> None:
    assert {lane.name: lane.enabled for lane in HEX} == {"hex4_2p": True, "hex5_2p": True, "connect4_2p": False}


@pytest.mark.parametrize("lane", HEX, ids=lambda lane: lane.name)
def test_the_engine_knows_every_hyper_parameter_of_a_lane(lane: LaneSpec) -> None:
    job = {"seed": 1, "game": lane.game, "game_params": lane.game_params, "params": lane.params}
    read = read_job(job, "selfplay")
    for name, range_ in lane.tunable.items():
        assert range_.low <= read.params[name] <= range_.high


def test_the_four_programs_hand_each_other_their_files(tmp_path: Path) -> None:
    lane = HEX[0]
    job = {"task": "t", "attempt": 1, "lane": lane.name, "node": "n1", "seed": 3, "game": lane.game,
           "game_params": lane.game_params, "params": {**lane.params, "width": 16, "simulations": 4}}  # fmt: skip
    call(lane, "selfplay", {**job, "work": {"games": 40}, "inputs": {"model": None}}, tmp_path / "s")
    batches = {"batches": [str(tmp_path / "s/games.sqlite")]}
    call(lane, "export", {**job, "work": {"window_positions": None}, "inputs": batches}, tmp_path / "e")
    shards = {"shards": [str(tmp_path / "e/shard.npz")], "parent": None}
    trained = call(
        lane, "train", {**job, "work": {"steps": None, "new_positions": 50}, "inputs": shards}, tmp_path / "t"
    )
    assert trained["evidence"]["steps"] == 7
    models = {"candidate": [str(tmp_path / "t/model.npz")], "baseline": []}
    played = call(lane, "evaluate", {**job, "work": {"pairs": 4}, "inputs": models}, tmp_path / "v")
    assert sum(played["evidence"]["counts"]) == 4


def test_ten_lines_without_dependencies_are_an_engine(tmp_path: Path) -> None:
    job = {"kind": "selfplay", "seed": 4, "work": {"games": 25}}
    result = call(DICE, "selfplay", job, tmp_path / "a")
    assert result["evidence"] == {"games": 25, "positions": 50}
    assert len((tmp_path / "a/games.jsonl").read_text().splitlines()) == 25
    assert call(DICE, "selfplay", job, tmp_path / "b")["files"] == result["files"]
    assert DICE.auto == ("sync",)


def test_the_lane_in_the_readme_loads(tmp_path: Path) -> None:
    (snippet,) = re.findall(r"```toml\n(.*?)```", (ROOT / "examples/hex/README.md").read_text(), re.DOTALL)
    (tmp_path / "lane.toml").write_text(snippet)
    (lane,) = load_lanes(tmp_path / "lane.toml")
    assert lane.needs["train"].gpu
