"""The workload's programs, called in this process on a board that is small enough to learn in a second."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sparring_hex.evaluate import evaluate
from sparring_hex.export import export
from sparring_hex.job import read_job
from sparring_hex.program import Desk
from sparring_hex.selfplay import selfplay
from sparring_hex.train import train

WORK = {"selfplay": selfplay, "export": export, "train": train, "evaluate": evaluate}
Do = Callable[..., tuple[Path, dict[str, Any]]]


@pytest.fixture
def do(tmp_path: Path) -> Do:
    """`do(kind, work, seed=…, out=…, params=…, input=path…)` gives the first file made and the evidence."""

    def program(
        kind: str,
        work: dict[str, Any],
        seed: int = 1,
        out: str = "",
        params: dict[str, Any] | None = None,
        **inputs: Any,
    ) -> tuple[Path, dict[str, Any]]:
        given = {name: [str(one) for one in value] if isinstance(value, list) else value and str(value)
                 for name, value in inputs.items()}  # fmt: skip
        small = {"width": 32, "simulations": 12, "opening_plies": 1, "temperature_plies": 3, **(params or {})}
        job = {"kind": kind, "seed": seed, "game": "hex", "game_params": {"board_size": 3}, "lane": "hex3_2p"}
        desk = Desk(tmp_path / (out or kind), quiet=True)
        outcome = WORK[kind](read_job({**job, "params": small, "work": work, "inputs": given}, kind), desk)
        return desk.out / outcome.files[0]["name"], outcome.evidence

    return program
