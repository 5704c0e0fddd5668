"""A batch of games as one SQLite file: planes and legal moves in bits, a policy as counts of visits."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import zlib
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparring_hex.rules import Bools, Floats, Ints

SCHEMA = """
create table meta(key text primary key, value text not null) without rowid;
create table games(id integer primary key, lane text, model text, seed integer, outcome real, plies integer,
    moves blob);
create table positions(game integer, ply integer, player integer, planes blob, legal blob, policy blob,
    root_value real, outcome real, primary key (game, ply)) without rowid;
"""
ROWS = "select game, ply, player, planes, legal, policy, root_value, outcome from positions order by game, ply"
MOST_SMALL = 255
MOST_PLAIN = 128  # with more moves than this a policy is mostly zeros, and worth compressing


class BadBatch(Exception):
    """A file is no batch of games that can be read; the message says why."""


@dataclass
class Seen:
    """A searched position; planes, legal moves and visits as its player saw them."""

    ply: int
    player: int
    planes: Floats
    legal: Bools
    visits: Floats
    root_value: float


@dataclass
class Game:
    """A finished game: OpenSpiel's moves, its searched positions, and the first player's outcome."""

    moves: list[int] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    outcome: float = 0.0


@dataclass(frozen=True)
class Batch:
    """What a file holds, one row a position. `policy` is all 0 where it is missing, `root_value` NaN.

    `outcome` is that of the player to move. `identity` is equal for positions of games with equal content.
    """

    about: dict[str, Any]
    game: Ints
    ply: Ints
    player: Ints
    planes: Floats
    legal: Bools
    policy: Floats
    root_value: Floats
    outcome: Floats
    identity: Ints
    games: list[tuple[int, float, int, list[int]]]  # id, the first player's outcome, plies, moves


def write_games(path: Path, games: Sequence[Game], about: dict[str, Any]) -> None:
    """Writes a batch. `about` tells lane, model, seed, game, game_params, features, actions and simulations."""
    small = about["simulations"] <= MOST_SMALL
    meta = {**about, "visits": "u1" if small else "<u2", "schema": 1}
    with closing(sqlite3.connect(path, isolation_level=None)) as file:
        file.execute("pragma page_size = 1024")
        file.execute("pragma journal_mode = off")
        file.executescript(SCHEMA)
        file.execute("begin")
        file.executemany("insert into meta values (?, ?)", [(key, json.dumps(meta[key])) for key in sorted(meta)])
        for number, game in enumerate(games):
            moves = np.array(game.moves, "<u2").tobytes()
            row = (number, about["lane"], about["model"], about["seed"], game.outcome, len(game.moves), moves)
            file.execute("insert into games values (?, ?, ?, ?, ?, ?, ?)", row)
            file.executemany(
                "insert into positions values (?, ?, ?, ?, ?, ?, ?, ?)",
                [_row(number, game, seen, meta["visits"]) for seen in game.seen],
            )
        file.execute("commit")


def _row(number: int, game: Game, seen: Seen, kind: str) -> tuple[Any, ...]:
    planes, legal = np.packbits(seen.planes != 0).tobytes(), np.packbits(seen.legal).tobytes()
    outcome = game.outcome if seen.player == 0 else -game.outcome
    value = round(float(seen.root_value), 4)
    policy = seen.visits.astype(kind).tobytes()
    if len(seen.visits) > MOST_PLAIN:
        planes, legal, policy = (zlib.compress(blob, 9) for blob in (planes, legal, policy))
    return number, seen.ply, seen.player, planes, legal, policy, value, outcome


def read_games(path: Path) -> Batch:
    """The batch of a file. Raises BadBatch when it is no such file, or a row has another shape than it says."""
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as file:
            about = {key: json.loads(value) for key, value in file.execute("select key, value from meta")}
            games = [
                (int(number), float(outcome), int(plies), np.frombuffer(moves, "<u2").tolist())
                for number, outcome, plies, moves in file.execute(
                    "select id, outcome, plies, moves from games order by id"
                )
            ]
            rows = file.execute(ROWS).fetchall()
        return _batch(about, games, rows)
    except (sqlite3.Error, zlib.error, ValueError, TypeError, KeyError) as error:
        raise BadBatch(f"{path.name} is no readable batch of games: {error}") from error


def _batch(about: dict[str, Any], games: list[tuple[int, float, int, list[int]]], rows: list[Any]) -> Batch:
    features, actions = int(about["features"]), int(about["actions"])
    visits = np.dtype(about["visits"])
    if actions > MOST_PLAIN:
        rows = [
            (*row[:3], *(None if blob is None else zlib.decompress(blob) for blob in row[3:6]), *row[6:])
            for row in rows
        ]
    columns = list(zip(*rows, strict=True)) if rows else [()] * 8
    game, ply, player, planes, legal, policies, values, outcomes = columns
    policy = np.zeros((len(rows), actions), np.float32)
    for row, blob in enumerate(policies):
        if blob is not None:
            policy[row] = np.frombuffer(blob, visits)
    total = policy.sum(axis=1, keepdims=True)
    np.divide(policy, total, out=policy, where=total > 0)
    return Batch(
        about=about,
        game=np.array(game, np.int64),
        ply=np.array(ply, np.int64),
        player=np.array(player, np.int64),
        planes=_bits(planes, features).astype(np.float32),
        legal=_bits(legal, actions).astype(np.bool_),
        policy=policy,
        root_value=np.array([np.nan if value is None else value for value in values], np.float32),
        outcome=np.array([np.nan if value is None else value for value in outcomes], np.float32),
        identity=_identities(rows),
        games=games,
    )


def _bits(blobs: Sequence[bytes], wide: int) -> NDArray[np.uint8]:
    packed = np.frombuffer(b"".join(blobs), np.uint8)
    return np.unpackbits(packed.reshape(len(blobs), (wide + 7) // 8), axis=1)[:, :wide]


def _identities(rows: Sequence[Any]) -> Ints:
    """Per position 63 bits of its game's content: planes and policies of all its positions."""
    content: dict[int, list[Any]] = {}
    for row in rows:
        content.setdefault(row[0], []).extend((row[3], row[5]))
    named = {game: _digest(parts) for game, parts in content.items()}
    return np.array([named[row[0]] for row in rows], np.int64)


def _digest(parts: Sequence[bytes | None]) -> int:
    return int.from_bytes(hashlib.sha256(b"|".join(part or b"" for part in parts)).digest()[:8], "big") >> 1
