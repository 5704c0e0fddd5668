"""Plays games against itself: a model (or generation 0) in, one SQLite file of games out."""

from __future__ import annotations

from typing import Any

import numpy as np

from sparring_hex.games_file import Game, write_games
from sparring_hex.job import Job, Refused
from sparring_hex.network import network_of
from sparring_hex.play import Style, play_games
from sparring_hex.program import Desk, Outcome, run, sha256
from sparring_hex.rules import Rules

FILE = "games.sqlite"


def style_of(job: Job) -> Style:
    """How a job's self-play explores."""
    return Style(
        simulations=job.count("simulations", job.whole("simulations"), low=1),
        c_puct=job.params["c_puct"],
        noise=job.params["noise"],
        dirichlet_alpha=job.params["dirichlet_alpha"],
        temperature_plies=job.whole("temperature_plies"),
        opening_plies=job.whole("opening_plies"),
    )


def selfplay(job: Job, desk: Desk) -> Outcome:
    """Raises Refused when it was stopped before the first game ended."""
    rules = Rules(job.game, job.game_params)
    network, path, style = network_of(job, rules, "model"), job.file("model"), style_of(job)
    wanted = job.count("games", low=1)

    def told(done: int) -> bool:
        desk.progress(done, wanted, games_per_s=round(done / max(desk.seconds(), 0.001), 1))
        return not desk.stopping

    games = play_games(rules, network, style, wanted, job.seed, told)
    if not games:
        raise Refused("stopped before the first game ended; there is nothing to keep")
    about = {
        "lane": job.lane, "model": sha256(path) if path else f"generation0:{job.whole('generation0_seed')}",
        "seed": job.seed, "game": rules.name, "game_params": rules.params, "features": rules.features,
        "actions": rules.actions, "simulations": style.simulations, "task": job.task, "attempt": job.attempt,
    }  # fmt: skip
    with desk.writing(FILE) as temporary:
        write_games(temporary, games, about)
    desk.progress(len(games), wanted, now=True)
    return Outcome([desk.made(FILE, "games")], {**evidence(games), "wanted": wanted, "seconds": desk.seconds()})


def evidence(games: list[Game]) -> dict[str, Any]:
    """What was played; outcomes are wins of the first and the second player."""
    seen = [one for game in games for one in game.seen]
    outcomes = [game.outcome for game in games]
    return {
        "games": len(games),
        "positions": len(seen),
        "outcomes": {
            "first": sum(one > 0 for one in outcomes),
            "second": sum(one < 0 for one in outcomes),
            "draw": sum(one == 0 for one in outcomes),
        },
        "mean_plies": round(float(np.mean([len(game.moves) for game in games])), 3),
        "policy_coverage": sum(one.visits.sum() > 0 for one in seen) / max(len(seen), 1),
    }


if __name__ == "__main__":
    run("selfplay", selfplay)
