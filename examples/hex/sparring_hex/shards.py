"""Training data as arrays: what an export writes and a training reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from sparring_hex.job import BadJob
from sparring_hex.rules import Bools, Floats, Ints


@dataclass(frozen=True)
class Data:
    """One row a position, as its player to move sees it.

    planes float32 [P, F], policy float32 [P, A] (all 0 where missing), legal bool [P, A], value float32 [P] (the
    outcome), search_value float32 [P], weight float32 [P], game int64 [P] (63 bits of its game's content).
    """

    planes: Floats
    policy: Floats
    legal: Bools
    value: Floats
    search_value: Floats
    weight: Floats
    game: Ints

    def __len__(self) -> int:
        return len(self.planes)

    def rows(self, chosen: Ints | Bools) -> Data:
        """The chosen positions."""
        return Data(**{one.name: getattr(self, one.name)[chosen] for one in fields(self)})

    def coverage(self) -> dict[str, float]:
        """Per field the share of positions where it is there and makes sense."""
        total = max(len(self), 1)
        on_legal = np.where(self.legal, self.policy, 0).sum(axis=1)
        whole = np.isfinite(self.policy).all(axis=1) & (np.abs(on_legal - 1) < 1e-3)
        sound = {
            "planes": np.isfinite(self.planes).all(axis=1),
            "policy": whole,
            "legal": self.legal.any(axis=1),
            "value": np.isfinite(self.value) & (np.abs(self.value) <= 1),
            "search_value": np.isfinite(self.search_value),
        }
        return {name: float(rows.sum()) / total for name, rows in sound.items()}


def joined(parts: Sequence[Data]) -> Data:
    """All positions, in order."""
    return Data(**{one.name: np.concatenate([getattr(part, one.name) for part in parts]) for one in fields(Data)})


def save_shard(path: Path, data: Data) -> None:
    """Writes a shard; equal data give equal bytes."""
    with path.open("wb") as file:
        np.savez_compressed(file, **{one.name: getattr(data, one.name) for one in fields(Data)})


def load_shard(path: Path) -> Data:
    """Reads a shard. Raises BadJob when it is none."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return Data(**{one.name: file[one.name] for one in fields(Data)})
    except Exception as error:
        raise BadJob(f"inputs.shards = {str(path)!r}: not a shard ({error}); name what an export wrote") from error
