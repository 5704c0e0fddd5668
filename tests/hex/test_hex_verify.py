"""Verification: a batch that makes no sense is named, and why."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from sparring_hex.verify import verify_games

Do = Callable[..., tuple[Path, dict[str, Any]]]


@pytest.fixture
def batch(do: Do) -> Path:
    path: Path = do("selfplay", {"games": 12})[0]
    return path


def spoil(path: Path, statement: str, *values: object) -> dict[str, object]:
    with closing(sqlite3.connect(path)) as file, file:
        file.execute(statement, values)
    found = verify_games(path)
    assert not found["ok"]
    return found


def test_a_sound_batch_passes(batch: Path) -> None:
    found = verify_games(batch)
    assert (found["ok"], found["reason"], found["games"], found["duplicates"]) == (True, "", 12, 0.0)
    assert found["decisive_share"] == 1.0
    assert 5 <= found["mean_plies"] <= 9


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("update positions set policy = null where game < 4", "policy targets for"),
        ("update positions set policy = zeroblob(9) where game < 4", "policy targets for"),
        ("update positions set root_value = null where game = 3", "game 3, ply 1: root_value = nan"),
        ("update positions set outcome = null where game = 3", "game 3, ply 1: outcome = nan"),
        ("update positions set outcome = -outcome where game = 2", "game 2, ply 1: outcome are not what the rules say"),
        ("update games set outcome = -outcome where id = 5", "game 5: outcome"),
        ("update games set moves = zeroblob(8) where id = 5", "game 5, ply 1: move 0 is not legal"),
        ("update positions set planes = zeroblob(3) where game = 1 and ply = 2", "game 1, ply 2: "),
        ("update positions set legal = zeroblob(7) where game = 1", "no readable batch"),
        ("update positions set planes = zeroblob(99) where game = 1", "no readable batch"),
        ("delete from games where id = 7", "game 7, ply 1: no game leads to this position"),
        ("delete from positions", "12 games and 0 positions"),
        ("drop table games", "no such table"),
    ],
)
def test_what_makes_no_sense_is_named(batch: Path, statement: str, reason: str) -> None:
    assert reason in str(spoil(batch, statement)["reason"])


def test_a_nan_is_never_a_root_value(batch: Path) -> None:
    assert "root_value" in str(
        spoil(batch, "update positions set root_value = ? where game = 0", float("nan"))["reason"]
    )


def test_games_with_equal_content_are_duplicates(batch: Path) -> None:
    with closing(sqlite3.connect(batch)) as file, file:
        file.execute("insert into games select id + 100, lane, model, seed, outcome, plies, moves from games")
        file.execute(
            "insert into positions select game + 100, ply, player, planes, legal, policy, root_value, outcome "
            "from positions"
        )
    assert verify_games(batch)["duplicates"] == 0.5


def test_the_program_exits_0_with_one_result_line_whatever_it_finds(tmp_path: Path) -> None:
    (tmp_path / "noise").write_bytes(b"not a database at all" * 100)
    argv = [sys.executable, "-m", "sparring_hex.verify", str(tmp_path / "noise")]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60)
    (line,) = done.stdout.splitlines()
    result = json.loads(line)["result"]
    assert result["ok"] is False
    assert "no readable batch" in result["reason"]
