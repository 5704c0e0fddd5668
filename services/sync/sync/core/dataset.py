"""A data set is one fact: the sorted list of its batches; its identity is that list's SHA-256."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sparring.contracts.base import Fact
from sparring.contracts.sync import BatchRef, DatasetRefused, DatasetSealed, SealDataset, ShardsRetired
from sparring.decider import Context, Decider, Recorded, replace
from sparring.manifest import manifest_hash
from sync.core.picture import Shelf


@dataclass(frozen=True)
class Dataset:
    sealed: str = ""
    attempt: int = 1
    shards_retired: bool = False


def evolve(dataset: Dataset, recorded: Recorded) -> Dataset:
    match recorded.fact:
        case DatasetSealed(dataset=name, attempt=attempt):
            return Dataset(name, attempt)
        case ShardsRetired():
            return replace(dataset, shards_retired=True)
    return dataset


DATASET = Decider("sync", "dataset", Dataset(), evolve)


def seal(order: SealDataset, dataset: Dataset, ctx: Context) -> list[Fact]:
    """The lane's newest admitted batches of the window, as many as one fact can list. Everything new is in the window and
    counts as new, listed or not: what is passed over once is not new again.
    """
    if dataset.sealed and order.attempt <= dataset.attempt:
        return []
    shelf = ctx.picture.shelf(order.lane)
    window = list(_window(order, shelf))
    fresh = [one for one, is_new in window if is_new]
    if not fresh:
        reason = f"lane {order.lane} has {shelf.games} admitted games, none beyond those of earlier data sets"
        return [DatasetRefused(iteration=order.iteration, lane=order.lane, reason=reason)]
    listed = tuple(sorted(_listable(window, ctx.settings.manifest_bytes), key=lambda one: one.batch))
    return [
        DatasetSealed(
            iteration=order.iteration, lane=order.lane, dataset=manifest_hash(order.iteration, listed), batches=listed,
            games=sum(one.games for one in listed), positions=sum(one.positions for one in listed),
            new_games=sum(one.games for one in fresh), new_positions=sum(one.positions for one in fresh),
            left_out=len(window) - len(listed), attempt=order.attempt,
        )
    ]  # fmt: skip


def _window(order: SealDataset, shelf: Shelf) -> Iterator[tuple[BatchRef, bool]]:
    """The newest first, with whether it came since the last data set."""
    positions = games = 0
    # an order that comes late knows less than the log
    fresh_games = shelf.games - max(order.since_games, shelf.consumed)
    for batch in reversed(shelf.batches.values()):
        is_new = games < fresh_games
        if not is_new and positions + batch.positions > order.window_positions:
            return
        yield batch, is_new
        positions += batch.positions
        games += batch.games


def _listable(window: Sequence[tuple[BatchRef, bool]], most_bytes: int) -> Iterator[BatchRef]:
    """The newest, as many as make a list of at most that many bytes, and at least one."""
    size = 0
    for number, (batch, _) in enumerate(window):
        size += len(batch.model_dump_json()) + 1
        if size > most_bytes and number:
            return
        yield batch
