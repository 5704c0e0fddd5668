"""Self-play and export: what is played is kept, compact, and the same for the same job."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sparring_hex.games_file import read_games
from sparring_hex.job import BadJob
from sparring_hex.program import sha256
from sparring_hex.shards import load_shard
from sparring_hex.verify import verify_games

Do = Callable[..., tuple[Path, dict[str, Any]]]


def test_the_same_job_plays_the_same_games(do: Do) -> None:
    one, _ = do("selfplay", {"games": 70}, seed=5, out="a")
    same, _ = do("selfplay", {"games": 70}, seed=5, out="b")
    other, _ = do("selfplay", {"games": 70}, seed=6, out="c")
    assert sha256(one) == sha256(same) != sha256(other)


def test_policy_targets_are_normalised_over_legal_moves(do: Do) -> None:
    batch = read_games(do("selfplay", {"games": 20})[0])
    assert np.allclose(batch.policy.sum(axis=1), 1, atol=1e-5)
    assert not (batch.policy[~batch.legal] > 0).any()


def test_a_value_is_seen_by_the_player_to_move(do: Do) -> None:
    batch = read_games(do("selfplay", {"games": 20})[0])
    ends = {number: outcome for number, outcome, _, _ in batch.games}
    for game, player, outcome in zip(batch.game.tolist(), batch.player.tolist(), batch.outcome.tolist(), strict=True):
        assert outcome == (ends[game] if player == 0 else -ends[game])
    last = [int(np.flatnonzero(batch.game == game)[-1]) for game in ends]
    assert (batch.outcome[last] == 1).all(), "in Hex whoever moves last has won"
    assert {0, 1} == set(batch.player[last].tolist())


def test_a_position_takes_at_most_150_bytes_on_disk(do: Do) -> None:
    path, evidence = do("selfplay", {"games": 64})
    assert path.stat().st_size / evidence["positions"] <= 150


def test_evidence_counts_what_is_in_the_file(do: Do) -> None:
    path, evidence = do("selfplay", {"games": 33})
    found = verify_games(path)
    assert found["ok"], found["reason"]
    assert evidence["games"] == found["games"] == 33 == sum(evidence["outcomes"].values())
    assert evidence["positions"] == found["positions"]
    assert evidence["policy_coverage"] == found["policy_coverage"] == 1.0


def test_what_was_played_until_sigterm_counts(tmp_path: Path) -> None:
    job = {"seed": 1, "game": "hex", "game_params": {"board_size": 3}, "work": {"games": 1_000_000}}
    (tmp_path / "job.json").write_text(json.dumps(job))
    argv = [sys.executable, "-m", "sparring_hex.selfplay", "--job", str(tmp_path / "job.json"), "--out", str(tmp_path)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        for line in program.stdout:
            if json.loads(line)["progress"]["done"] > 0:
                break
        program.send_signal(signal.SIGTERM)
        lines = [json.loads(line) for line in program.stdout]
        assert program.wait(timeout=10) == 0
    evidence = lines[-1]["result"]["evidence"]
    found = verify_games(tmp_path / "games.sqlite")
    assert found["ok"], found["reason"]
    assert 0 < evidence["games"] == found["games"] < 1_000_000
    assert lines[-1]["result"]["files"][0]["sha256"] == sha256(tmp_path / "games.sqlite")


def test_an_export_holds_every_position_once_and_tells_the_share_of_duplicates(do: Do) -> None:
    one, first = do("selfplay", {"games": 16}, seed=1, out="a")
    other, second = do("selfplay", {"games": 16}, seed=2, out="b")
    _, clean = do("export", {}, batches=[one, other], out="clean")
    shard, twice = do("export", {}, batches=[one, other, one], out="twice")
    assert clean["duplicates"] == 0
    assert (
        clean["positions"] == twice["positions"] == first["positions"] + second["positions"] == len(load_shard(shard))
    )
    assert twice["duplicates"] == pytest.approx(first["positions"] / (2 * first["positions"] + second["positions"]))
    assert set(clean["coverage"].values()) == {1.0}


def test_a_shard_has_the_promised_shapes_and_types(do: Do) -> None:
    shard, evidence = do("export", {}, batches=[do("selfplay", {"games": 8})[0]])
    with np.load(shard) as file:
        found = {
            name: (str(file[name].dtype), file[name].shape) for name in ("planes", "policy", "legal", "value", "weight")
        }
    size = evidence["positions"]
    assert found == {
        "planes": ("float32", (size, 18)), "policy": ("float32", (size, 9)), "legal": ("bool", (size, 9)),
        "value": ("float32", (size,)), "weight": ("float32", (size,)),
    }  # fmt: skip


def test_a_window_cuts_whole_games(do: Do) -> None:
    batch, played = do("selfplay", {"games": 40})
    whole, _ = do("export", {}, batches=[batch], out="whole")
    cut, evidence = do("export", {"window_positions": 60}, batches=[batch], out="cut")
    assert played["positions"] > 60 >= evidence["positions"] > 40
    sizes = dict(zip(*np.unique(load_shard(whole).game, return_counts=True), strict=True))
    assert all(
        sizes[game] == count for game, count in zip(*np.unique(load_shard(cut).game, return_counts=True), strict=True)
    )


def test_games_of_another_board_are_not_exported(do: Do) -> None:
    batch, _ = do("selfplay", {"games": 4})
    from sparring_hex.export import export
    from sparring_hex.job import read_job
    from sparring_hex.program import Desk

    job = read_job(
        {"seed": 1, "game": "hex", "game_params": {"board_size": 4}, "inputs": {"batches": [str(batch)]}}, "export"
    )
    with pytest.raises(BadJob, match=r"inputs\.batches = .*name batches of the same lane"):
        export(job, Desk(batch.parent, quiet=True))
