"""A data set is one fact: the sorted list of its batches; its identity is that list's SHA-256."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

from sparring.contracts.base import Fact
from sparring.contracts.sync import BatchRef, DatasetRefused, DatasetSealed, SealDataset, ShardsRetired
from sparring.decider import Context, Decider, Recorded, replace


@dataclass(frozen=True)
class Dataset:
    sealed: str = ""
    shards_retired: bool = False


def evolve(dataset: Dataset, recorded: Recorded) -> Dataset:
    match recorded.fact:
        case DatasetSealed(dataset=name):
            return Dataset(name)
        case ShardsRetired():
            return replace(dataset, shards_retired=True)
    return dataset


DATASET = Decider("sync", "dataset", Dataset(), evolve)


def manifest_hash(iteration: str, batches: Sequence[BatchRef]) -> str:
    """SHA-256 of the canonical JSON of the iteration and its batches' names and hashes, sorted by name."""
    listed = [[one.batch, one.sha256] for one in batches]
    return hashlib.sha256(json.dumps([iteration, listed], separators=(",", ":")).encode()).hexdigest()


def seal(order: SealDataset, dataset: Dataset, ctx: Context) -> list[Fact]:
    """The lane's newest admitted batches that fit the window; everything new is always in it."""
    if dataset.sealed:
        return []
    shelf = ctx.picture.shelf(order.lane)
    fresh_games = shelf.games - order.since_games
    chosen: list[BatchRef] = []
    positions = games = new_games = new_positions = 0
    for batch in reversed(shelf.batches.values()):
        is_new = games < fresh_games
        if not is_new and positions + batch.positions > order.window_positions:
            break
        chosen.append(batch)
        positions += batch.positions
        games += batch.games
        if is_new:
            new_games += batch.games
            new_positions += batch.positions
    if new_games == 0:
        reason = f"lane {order.lane} has {shelf.games} admitted games, none beyond the {order.since_games} of before"
        return [DatasetRefused(iteration=order.iteration, lane=order.lane, reason=reason)]
    listed = tuple(sorted(chosen, key=lambda one: one.batch))
    return [
        DatasetSealed(
            iteration=order.iteration, lane=order.lane, dataset=manifest_hash(order.iteration, listed), batches=listed,
            games=games, positions=positions, new_games=new_games, new_positions=new_positions,
        )
    ]  # fmt: skip
