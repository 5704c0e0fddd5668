"""Checks a batch of games for sense: shapes, numbers, policies, and every game replayed by the rules."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from sparring_hex.export import once
from sparring_hex.games_file import BadBatch, Batch, read_games
from sparring_hex.job import BadJob
from sparring_hex.rules import Rules

LEAST_COVERAGE = 0.99


class Senseless(Exception):
    """A batch contradicts itself or the rules; the message says where."""


def verify_games(path: Path) -> dict[str, Any]:
    """What a batch holds and whether it makes sense: ok, reason, and the numbers as far as they are known."""
    try:
        batch = read_games(path)
    except BadBatch as error:
        return {"ok": False, "reason": str(error), "games": 0, "positions": 0}
    found = measured(batch)
    try:
        _check_numbers(batch, found["policy_coverage"])
        _replay(batch, Rules(batch.about["game"], batch.about["game_params"]))
    except (Senseless, BadJob, KeyError) as error:
        return {"ok": False, "reason": str(error), **found}
    return {"ok": True, "reason": "", **found}


def measured(batch: Batch) -> dict[str, Any]:
    """A batch's numbers. A duplicate is a position of a game that stands there with equal content before."""
    games, positions = len(batch.games), len(batch.game)
    return {
        "games": games,
        "positions": positions,
        "policy_coverage": float((batch.policy.sum(axis=1) > 0).sum()) / max(positions, 1),
        "decisive_share": sum(one[1] != 0 for one in batch.games) / max(games, 1),
        "mean_plies": sum(one[2] for one in batch.games) / max(games, 1),
        "duplicates": float((~once(batch)).sum()) / max(positions, 1),
    }


def _check_numbers(batch: Batch, coverage: float) -> None:
    if not batch.games or not len(batch.game):
        raise Senseless(f"{len(batch.games)} games and {len(batch.game)} positions: the batch is empty")
    if coverage < LEAST_COVERAGE:
        raise Senseless(f"policy targets for {coverage:.1%} of positions, {LEAST_COVERAGE:.0%} is the least")
    for name, values in (("root_value", batch.root_value), ("outcome", batch.outcome)):
        bad = np.flatnonzero(~(np.abs(values) <= 1))  # a NaN is never <= 1
        if bad.size:
            raise Senseless(f"{_where(batch, bad[0])}: {name} = {values[bad[0]]} is no number from -1 to 1")
    astray = np.flatnonzero((batch.policy * ~batch.legal).sum(axis=1) > 0)
    if astray.size:
        raise Senseless(f"{_where(batch, astray[0])}: the policy wants a move that is not legal")


def _replay(batch: Batch, rules: Rules) -> None:
    """Plays every game again: its moves are legal, its outcome is the rules', its positions look as stored."""
    if batch.planes.shape[1] != rules.features or batch.legal.shape[1] != rules.actions:
        raise Senseless(f"planes {batch.planes.shape} and legal {batch.legal.shape} are not of {rules.name}")
    rows = {key: row for row, key in enumerate(zip(batch.game.tolist(), batch.ply.tolist(), strict=True))}
    met, states = [], []
    for number, outcome, plies, moves in batch.games:
        state = rules.start()
        for ply, move in enumerate(moves):
            if state.is_terminal() or move not in state.legal_actions():
                raise Senseless(f"game {number}, ply {ply}: move {move} is not legal")
            row = rows.pop((number, ply), None)
            if row is not None:
                met.append(row)
                states.append(state.clone())
            state.apply_action(move)
        if not state.is_terminal() or state.player_return(0) != outcome or plies != len(moves):
            raise Senseless(f"game {number}: outcome {outcome} after {plies} plies is not what its moves lead to")
    if rows:
        raise Senseless(f"{_where(batch, next(iter(rows.values())))}: no game leads to this position")
    planes, legal, players = rules.look(states)
    ends = {number: outcome for number, outcome, _, _ in batch.games}
    wanted = np.array([ends[game] for game in batch.game[met].tolist()]) * (1 - 2 * players)
    for name, same in (
        ("planes", (batch.planes[met] == planes).all(axis=1)),
        ("legal moves", (batch.legal[met] == legal).all(axis=1)),
        ("player", batch.player[met] == players),
        ("outcome", batch.outcome[met] == wanted),
    ):
        if not same.all():
            raise Senseless(f"{_where(batch, met[int(np.argmin(same))])}: {name} are not what the rules say")


def _where(batch: Batch, row: int) -> str:
    return f"game {batch.game[row]}, ply {batch.ply[row]}"


def main() -> None:
    """Prints one result line; the exit code is 0 whatever the verdict."""
    parser = argparse.ArgumentParser(prog="python -m sparring_hex.verify", description=__doc__)
    parser.add_argument("file", type=Path, help="a batch of games (SQLite)")
    print(json.dumps({"result": verify_games(parser.parse_args().file)}))


if __name__ == "__main__":
    main()
