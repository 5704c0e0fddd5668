"""Makes training data of batches of games: one shard, each game once."""

from __future__ import annotations

import numpy as np

from sparring_hex.games_file import BadBatch, Batch, read_games
from sparring_hex.job import BadJob, Job, Refused
from sparring_hex.program import Desk, Outcome, run
from sparring_hex.rules import Bools, Ints
from sparring_hex.shards import Data, joined, save_shard

FILE = "shard.npz"


def data_of(batch: Batch) -> Data:
    """A batch's positions as training data."""
    return Data(
        planes=batch.planes,
        policy=batch.policy,
        legal=batch.legal,
        value=batch.outcome,
        search_value=batch.root_value,
        weight=np.ones(len(batch.game), np.float32),
        game=batch.identity,
    )


def export(job: Job, desk: Desk) -> Outcome:
    """Ends within seconds even when it is asked to stop: half an export would be another data set.

    A window cuts whole games, drawn by the job's seed: every batch keeps its share. Raises Refused for an unreadable
    batch, BadJob for one of another game.
    """
    paths = job.files("batches")
    window = job.optional_count("window_positions", low=1)
    parts: list[Data] = []
    known = np.empty(0, np.int64)
    read = 0
    for number, path in enumerate(paths, start=1):
        try:
            batch = read_games(path)
        except BadBatch as error:
            raise Refused(f"inputs.batches: {error}") from error
        if (batch.about.get("game"), batch.about.get("game_params")) != (job.game, dict(job.game_params)):
            raise BadJob(
                f"inputs.batches = {str(path)!r}: games of {batch.about.get('game')} {batch.about.get('game_params')}, "
                f"the job is for {job.game} {dict(job.game_params)}; name batches of the same lane"
            )
        read += len(batch.game)
        data = data_of(batch).rows(once(batch) & ~np.isin(batch.identity, known))
        known = np.union1d(known, data.game)
        parts.append(data)
        desk.progress(number, len(paths), now=number == len(paths))
    whole = joined(parts)
    kept = whole if window is None or len(whole) <= window else whole.rows(within(whole.game, window, job.seed))
    if not len(kept):
        raise Refused("the batches hold no position")
    with desk.writing(FILE) as temporary:
        save_shard(temporary, kept)
    evidence = {
        "positions": len(kept), "coverage": kept.coverage(), "duplicates": 1 - len(whole) / read,
        "batches": len(paths), "games": len(np.unique(kept.game)), "seconds": desk.seconds(),
    }  # fmt: skip
    return Outcome([desk.made(FILE, "shard")], evidence)


def once(batch: Batch) -> Bools:
    """True for the positions of a batch's games, but only of the first of several with equal content."""
    first: dict[int, int] = {}
    for identity, game in zip(batch.identity.tolist(), batch.game.tolist(), strict=True):
        first.setdefault(identity, game)
    return np.asarray(np.array([first[one] for one in batch.identity.tolist()], np.int64) == batch.game)


def within(games: Ints, window: int, seed: int) -> Bools:
    """True for the positions of games drawn until the next one would exceed the window."""
    names, sizes = np.unique(games, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(names))
    fits = np.cumsum(sizes[order]) <= window
    kept: Bools = np.isin(games, names[order][fits])
    return kept


if __name__ == "__main__":
    run("export", export)
