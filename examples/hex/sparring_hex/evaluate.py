"""Plays a match: two models (or a model against a baseline) in, counts of pair scores out."""

from __future__ import annotations

import json
from typing import Any

from sparring_hex.job import BadJob, Job, Refused
from sparring_hex.match import Player, Playouts, RandomPlayer, Score, Searcher, play_match
from sparring_hex.network import network_of
from sparring_hex.openings import openings
from sparring_hex.program import Desk, Outcome, run, sha256
from sparring_hex.rules import Rules

FILE = "results.json"
BASELINES = ("model", "random", "uct")


def evaluate(job: Job, desk: Desk) -> Outcome:
    """Raises Refused when it was stopped before the first pair was whole."""
    rules = Rules(job.game, job.game_params)
    settings = settings_of(job)
    pairs = job.count("pairs", low=1, high=100_000)
    candidate = Searcher(rules, network_of(job, rules, "candidate"), settings["simulations"], job.params["c_puct"])
    starts = openings(
        rules, settings["opening_plies"], settings["openings_seed"], settings["opening_offset"], pairs
    )  # fmt: skip

    def told(score: Score) -> bool:
        desk.progress(len(score.games), pairs, counts=score.counts)
        return not desk.stopping

    score = play_match(candidate, baseline_of(job, rules, settings), starts, told)
    played = len(score.games)
    desk.progress(played, pairs, now=True, counts=score.counts)
    if not played:
        raise Refused("stopped before the first pair of games ended; there is nothing to count")
    evidence = {
        "counts": score.counts, "pairs": played, "wanted": pairs, "games": 2 * played, "score": round(score.share(), 6),
        "seed": job.seed, "settings": settings, "seconds": desk.seconds(),
    }  # fmt: skip
    with desk.writing(FILE) as temporary:
        temporary.write_text(json.dumps({"lane": job.lane, **evidence, "outcomes": score.games}, indent=1))
    return Outcome([desk.made(FILE, "results")], evidence)


def settings_of(job: Job) -> dict[str, Any]:
    """Everything that a match's result depends on, but the seed. Raises BadJob for an unknown baseline."""
    kind = job.work.get("baseline_kind", "model")
    if kind not in BASELINES:
        raise BadJob(f"work.baseline_kind = {kind!r}: write one of {', '.join(BASELINES)}")
    candidate, baseline = job.file("candidate"), job.file("baseline")
    return {
        "simulations": job.count("simulations", job.whole("simulations"), low=1, high=10_000),
        "opening_plies": job.count("opening_plies", job.whole("opening_plies"), high=16),
        "openings_seed": job.count("openings_seed", job.seed, high=2**63 - 1),
        "opening_offset": job.count("opening_offset", 0),
        "temperature": 0,
        "c_puct": job.params["c_puct"],
        "candidate": sha256(candidate) if candidate else "generation0",
        "baseline_kind": kind,
        "baseline": kind if kind != "model" else sha256(baseline) if baseline else "generation0",
        "uct_playouts": job.count("uct_playouts", 1000, low=1) if kind == "uct" else None,
    }


def baseline_of(job: Job, rules: Rules, settings: dict[str, Any]) -> Player:
    """Who the candidate plays against."""
    if settings["baseline_kind"] == "random":
        return RandomPlayer(job.seed)
    if settings["baseline_kind"] == "uct":
        return Playouts(rules, settings["uct_playouts"], job.seed % 2**31)
    network = network_of(job, rules, "baseline")
    return Searcher(rules, network, settings["simulations"], job.params["c_puct"])


if __name__ == "__main__":
    run("evaluate", evaluate)
