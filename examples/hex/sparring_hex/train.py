"""Trains a model: shards and a parent (or generation 0) in, weights out; resumes from its own checkpoint."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from sparring_hex.job import BadJob, Job, Refused
from sparring_hex.network import Network, generation0, network_of, save_network
from sparring_hex.program import Desk, Outcome, run, sha256
from sparring_hex.rules import Rules
from sparring_hex.shards import Data, joined, load_shard
from sparring_hex.training import Losses, Recipe, Trainer, losses, sample, split

MODEL, CHECKPOINT = "model.npz", "checkpoint.npz"
LEAST_COVERAGE = 0.99


def train(job: Job, desk: Desk) -> Outcome:
    """Raises Refused when the data's policy coverage is below 99 %, or a number became infinite.

    Stopped early, it writes the model as far as it is, and a checkpoint to go on from.
    """
    rules = Rules(job.game, job.game_params)
    network = generation0(rules, job) if asks_for_generation0(job) else network_of(job, rules, "parent")
    if asks_for_generation0(job):
        return _keep(job, desk, rules, network, {"steps": 0, "positions": 0, "seconds": desk.seconds()})
    data = sound(joined([load_shard(path) for path in job.files("shards")]), rules)
    learned, held_out = split(data)
    if not len(learned):
        raise Refused("no position is left to train on once one game in 20 is held out; export more games")
    recipe = Recipe(
        job.params["lr"], job.params["l2"], job.whole("batch_size"), job.params["value_mix"], job.seed
    )  # fmt: skip
    trainer, measure = Trainer(network, learned, recipe, rules.rotation()), sample(learned, job.seed)
    before = losses(network, measure, recipe)
    checkpoint = _checkpoint(job)
    if checkpoint is not None:
        restore(checkpoint, trainer)
    steps = steps_of(job, len(data))
    _learn(job, desk, trainer, steps)
    if not np.isfinite(network.weights).all():
        raise Refused(f"the weights are not finite after {trainer.steps} steps; lower params.lr = {recipe.lr}")
    evidence = {
        "steps": trainer.steps, "wanted": steps, "positions": len(data), "seconds": desk.seconds(),
        **_told("before", before), **_told("after", losses(network, measure, recipe)),
        **_held_out(losses(network, held_out, recipe) if len(held_out) else None),
    }  # fmt: skip
    if trainer.steps < steps:
        with desk.writing(CHECKPOINT) as temporary:
            save_checkpoint(temporary, trainer)
    return _keep(job, desk, rules, network, evidence)


def asks_for_generation0(job: Job) -> bool:
    """Asked for generation 0 itself, untrained: `"work": {"generation0": true}`."""
    return job.work.get("generation0") is True


def sound(data: Data, rules: Rules) -> Data:
    """The positions that can be learned from. Raises Refused when too few of them are, BadJob for another game's."""
    if data.planes.shape[1:] != (rules.features,) or data.policy.shape[1:] != (rules.actions,):
        raise BadJob(
            f"inputs.shards: planes {data.planes.shape} and policy {data.policy.shape}, the game has {rules.features} "
            f"features and {rules.actions} moves; name shards of the same lane"
        )
    coverage = data.coverage()
    for name, share in coverage.items():
        if share < LEAST_COVERAGE:
            raise Refused(f"{name} coverage {share:.4f} of {len(data)} positions, {LEAST_COVERAGE} is the least")
    finite = np.isfinite(data.planes).all(axis=1) & np.isfinite(data.value) & np.isfinite(data.search_value)
    return data.rows(finite & (np.abs(data.policy.sum(axis=1) - 1) < 1e-3) & data.legal.any(axis=1))


def steps_of(job: Job, positions: int) -> int:
    """`work.steps`, or as many as use each of `work.new_positions` `uses_per_position` times; never over max_steps."""
    asked = job.optional_count("steps", low=1)
    if asked is None:
        fresh = job.optional_count("new_positions", low=1) or positions
        asked = max(1, math.ceil(job.params["uses_per_position"] * fresh / job.whole("batch_size")))
    most = job.optional_count("max_steps")
    return asked if most is None else max(1, min(asked, most))


def _learn(job: Job, desk: Desk, trainer: Trainer, steps: int) -> None:
    limit = job.work.get("max_seconds")
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int | float) or limit <= 0):
        raise BadJob(f"work.max_seconds = {limit!r}: write a number above 0, or null")
    while trainer.steps < steps and not desk.stopping and (limit is None or desk.seconds() < limit):
        trainer.step()
        desk.progress(trainer.steps, steps)
    desk.progress(trainer.steps, steps, now=True)


def _checkpoint(job: Job) -> Path | None:
    """The checkpoint to go on from: an input, or a path in `work`."""
    path, named = job.file("checkpoint"), job.work.get("checkpoint")
    if path is None and named is not None:
        if not isinstance(named, str) or not Path(named).is_file():
            raise BadJob(f"work.checkpoint = {named!r}: no such file; write the path of a checkpoint.npz, or null")
        return Path(named)
    return path


def save_checkpoint(path: Path, trainer: Trainer) -> None:
    """Writes all that a training needs to go on as if it had never stopped."""
    with path.open("wb") as file:
        np.savez(file, weights=trainer.network.weights, first=trainer.first, second=trainer.second, steps=trainer.steps)


def restore(path: Path, trainer: Trainer) -> None:
    """Goes on from a checkpoint. Raises BadJob when it is not one of this network."""
    try:
        with np.load(path, allow_pickle=False) as file:
            trainer.network.weights[:], trainer.first[:] = file["weights"], file["first"]
            trainer.second[:], trainer.steps = file["second"], int(file["steps"])
    except Exception as error:
        raise BadJob(f"checkpoint = {str(path)!r}: not one of this network ({error}); start without it") from error


def _keep(job: Job, desk: Desk, rules: Rules, network: Network, evidence: dict[str, Any]) -> Outcome:
    parent = job.file("parent")
    about = {
        "lane": job.lane, "parent": sha256(parent) if parent else "", "seed": job.seed, "task": job.task,
        "steps": evidence["steps"], "shards": [sha256(path) for path in job.inputs.get("shards", ())],
    }  # fmt: skip
    with desk.writing(MODEL) as temporary:
        save_network(temporary, network, rules, about)
    files = [desk.made(MODEL, "model")]
    if (desk.out / CHECKPOINT).is_file() and evidence["steps"] < evidence.get("wanted", 0):
        files.append(desk.made(CHECKPOINT, "checkpoint"))
    return Outcome(files, evidence)


def _told(when: str, measured: Losses) -> dict[str, float]:
    return {
        f"loss_{when}": round(measured.both, 6),
        f"policy_loss_{when}": round(measured.policy, 6),
        f"value_loss_{when}": round(measured.value, 6),
    }


def _held_out(measured: Losses | None) -> dict[str, float | None]:
    return {
        "heldout_policy_loss": None if measured is None else round(measured.policy, 6),
        "heldout_value_loss": None if measured is None else round(measured.value, 6),
    }


if __name__ == "__main__":
    run("train", train)
