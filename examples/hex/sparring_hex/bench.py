"""Measures the workload by itself: iterations of self-play and training in one process, then matches."""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from pathlib import Path
from typing import Any

from sparring_hex.evaluate import evaluate
from sparring_hex.export import export
from sparring_hex.job import read_job
from sparring_hex.program import Desk
from sparring_hex.selfplay import selfplay
from sparring_hex.train import train

BOARDS = {f"hex{size}": ("hex", {"board_size": size}) for size in (4, 5, 6, 8)}
GAMES: dict[str, tuple[str, dict[str, Any]]] = {**BOARDS, "connect4": ("connect_four", {}), "ttt": ("tic_tac_toe", {})}
WORK = {"selfplay": selfplay, "export": export, "train": train, "evaluate": evaluate}
WINDOW = 4


class Bench:
    """The four programs' work, called one after the other in one folder."""

    def __init__(self, game: str, seed: int, folder: Path) -> None:
        self.game, self.seed, self.folder = game, seed, folder
        self.spent = dict.fromkeys(WORK, 0.0)

    def do(self, kind: str, number: int, work: dict[str, Any], inputs: dict[str, Any]) -> tuple[Path, dict[str, Any]]:
        """The file that the program made, and its evidence."""
        name, params = GAMES[self.game]
        seed = self.seed * 1_000_003 + number
        job = read_job({"seed": seed, "game": name, "game_params": params, "work": work, "inputs": inputs}, kind)
        desk = Desk(self.folder / f"{kind}-{number}", quiet=True)
        outcome = WORK[kind](job, desk)
        self.spent[kind] += desk.seconds()
        return desk.out / str(outcome.files[0]["name"]), outcome.evidence

    def iterate(self, iterations: int, games: int) -> Path:
        """Plays and trains; returns the last model."""
        model: Path | None = None
        batches: list[str] = []
        for number in range(iterations):
            now = str(model) if model else None
            batch, played = self.do("selfplay", number, {"games": games}, {"model": now})
            batches = [*batches[1 - WINDOW :], str(batch)]
            shard, _ = self.do("export", number, {}, {"batches": batches})
            inputs = {"shards": [str(shard)], "parent": now}
            model, trained = self.do("train", number, {"new_positions": played["positions"]}, inputs)
            print(
                f"iteration {number + 1:3}: {played['positions']:5} positions, {trained['steps']:4} steps, "
                f"held-out policy {trained['heldout_policy_loss']:.3f} value {trained['heldout_value_loss']:.3f}",
                flush=True,
            )
        assert model is not None
        return model

    def match(self, model: Path, pairs: int, **work: Any) -> str:
        """One line about a match of the model against generation 0 or a baseline."""
        began = time.monotonic()
        _, found = self.do(
            "evaluate", 0, {"pairs": pairs, "openings_seed": self.seed, **work}, {"candidate": str(model)}
        )
        score, games = found["score"], found["games"]
        if score in (0, 1):  # rule of three: the 95 % bound when all games end alike
            sign, bound = ("more than", 3 / games) if score else ("less than", 1 - 3 / games)
        else:
            sign, bound = "", 1 - score
        elo = 400 * math.log10((1 - bound) / bound)
        return f"{score:7.1%} of {games} games, {sign} {elo:+.0f} Elo, {time.monotonic() - began:.1f} s"


def main() -> None:
    """Prints the iterations, the matches, and where the time went."""
    parser = argparse.ArgumentParser(prog="python -m sparring_hex.bench", description=__doc__)
    parser.add_argument("--game", choices=sorted(GAMES), default="hex5")
    parser.add_argument("--iterations", type=int, default=20)
    parser.add_argument("--games", type=int, default=256, help="games an iteration")
    parser.add_argument("--pairs", type=int, default=100, help="pairs of games a match")
    parser.add_argument("--uct", type=int, default=0, help="playouts of the UCT baseline; 0 leaves it out")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(given.game, given.seed, Path(folder))
        began = time.monotonic()
        model = bench.iterate(given.iterations, given.games)
        seconds = time.monotonic() - began
        print(f"{given.game}: {given.iterations} iterations of {given.games} games in {seconds:.1f} s")
        rate = given.iterations * given.games / bench.spent["selfplay"]
        shares = ", ".join(f"{kind} {spent:.1f} s" for kind, spent in bench.spent.items() if spent)
        print(f"{rate:.0f} games/s in self-play; {shares}")
        print("against generation 0:", bench.match(model, given.pairs))
        print("against random:      ", bench.match(model, given.pairs, baseline_kind="random"))
        if given.uct:
            print(
                f"against UCT {given.uct}:    ",
                bench.match(model, given.pairs, baseline_kind="uct", uct_playouts=given.uct),
            )


if __name__ == "__main__":
    main()
