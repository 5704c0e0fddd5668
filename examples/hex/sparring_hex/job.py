"""What a program is told: the job file, read and checked, with a clear sentence for every mistake."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class BadJob(Exception):
    """The job can't be done as written; the message names field, value and remedy. Exit code 2."""


class Refused(Exception):
    """The job is well formed, but its data or its result is not good enough to go on. Exit code 3."""


@dataclass(frozen=True)
class Range:
    """A number's limits, both inclusive."""

    low: float
    high: float
    whole: bool = False

    def read(self, field: str, value: Any) -> float:
        """The value. Raises BadJob outside the limits."""
        kind = "a whole number" if self.whole else "a number"
        fits = isinstance(value, int) if self.whole else isinstance(value, int | float)
        if isinstance(value, bool) or not fits or not math.isfinite(value) or not self.low <= value <= self.high:
            raise BadJob(f"{field} = {value!r}: write {kind} from {self.low:g} to {self.high:g}")
        return int(value) if self.whole else float(value)


PARAMS: dict[str, Range] = {
    "width": Range(4, 4096, whole=True),
    "simulations": Range(1, 10_000, whole=True),
    "temperature_plies": Range(0, 1000, whole=True),
    "opening_plies": Range(0, 16, whole=True),
    "dirichlet_alpha": Range(0.01, 10),
    "c_puct": Range(0.05, 20),
    "noise": Range(0, 1),
    "value_mix": Range(0, 1),
    "lr": Range(1e-6, 1),
    "batch_size": Range(1, 65_536, whole=True),
    "l2": Range(0, 1),
    "uses_per_position": Range(0.01, 10_000),
    "generation0_seed": Range(0, 2**63 - 1, whole=True),
}
SHARED: dict[str, float] = {
    "c_puct": 1.5, "noise": 0.25, "value_mix": 0.75, "lr": 2e-3, "batch_size": 256, "l2": 1e-4,
    "uses_per_position": 32.0, "generation0_seed": 0,
}  # fmt: skip
SIZED = ("width", "simulations", "temperature_plies", "opening_plies", "dirichlet_alpha")
BY_GAME: dict[str, tuple[float, ...]] = {
    "tic_tac_toe": (64, 25, 4, 1, 1.0),
    "hex4": (96, 32, 4, 2, 0.7),
    "hex5": (128, 32, 6, 2, 0.5),
    "hex6": (192, 48, 8, 3, 0.4),
    "hex8": (256, 64, 10, 3, 0.25),
    "connect_four": (192, 48, 8, 3, 0.8),
}


@dataclass(frozen=True)
class Job:
    """One task of one lane. `params` has every hyper-parameter, `inputs` local files by name."""

    kind: str
    task: str
    attempt: int
    lane: str
    seed: int
    game: str
    game_params: Mapping[str, Any]
    params: Mapping[str, float]
    work: Mapping[str, Any]
    inputs: Mapping[str, tuple[Path, ...]]

    def whole(self, name: str) -> int:
        """A hyper-parameter that counts something."""
        return int(self.params[name])

    def count(self, name: str, default: int | None = None, low: int = 0, high: int = 10**9) -> int:
        """A number of `work`. Raises BadJob when it is missing without a default, or out of its limits."""
        value = self.optional_count(name, low, high)
        if value is None:
            if default is None:
                raise BadJob(f"work.{name} is missing: write a whole number from {low} to {high}")
            return default
        return value

    def optional_count(self, name: str, low: int = 0, high: int = 10**9) -> int | None:
        """A number of `work`, None when it is null or missing. Raises BadJob out of its limits."""
        value = self.work.get(name)
        return None if value is None else int(Range(low, high, whole=True).read(f"work.{name}", value))

    def file(self, name: str) -> Path | None:
        """The one file of an input, None when it is null or missing. Raises BadJob for several."""
        files = self.inputs.get(name, ())
        if len(files) > 1:
            raise BadJob(f"inputs.{name} names {len(files)} files: write one path")
        return files[0] if files else None

    def files(self, name: str) -> tuple[Path, ...]:
        """All files of an input. Raises BadJob when there is none."""
        files = self.inputs.get(name, ())
        if not files:
            raise BadJob(f"inputs.{name} is missing: write a list with at least one path")
        return files


def load_job(path: Path, kind: str) -> Job:
    """The job of a file. Raises BadJob naming field, value and remedy."""
    try:
        data = json.loads(path.read_text())
    except OSError as error:
        raise BadJob(f"--job {path}: {error.strerror}; name a readable JSON file") from error
    except ValueError as error:
        raise BadJob(f"--job {path}: not JSON ({error})") from error
    return read_job(data, kind)


def read_job(data: Any, kind: str) -> Job:
    """A job from decoded JSON. Raises BadJob naming field, value and remedy."""
    if not isinstance(data, dict):
        raise BadJob(f"the job = {data!r}: write a JSON object")
    if data.get("kind", kind) != kind:
        raise BadJob(f"kind = {data['kind']!r}: this program does {kind!r}; run sparring_hex.{data['kind']}")
    game = _text(data, "game")
    game_params = _table(data, "game_params")
    inputs = {name: _paths(name, value) for name, value in _table(data, "inputs").items()}
    return Job(
        kind=kind,
        task=_text(data, "task", "by-hand"),
        attempt=int(Range(0, 10**6, whole=True).read("attempt", data.get("attempt", 1))),
        lane=_text(data, "lane", game),
        seed=int(Range(0, 2**63 - 1, whole=True).read("seed", data.get("seed"))),
        game=game,
        game_params=game_params,
        params=_params(game, game_params, _table(data, "params")),
        work=_table(data, "work"),
        inputs=inputs,
    )


def defaults(game: str, game_params: Mapping[str, Any]) -> dict[str, float]:
    """Every hyper-parameter's default; a game or a board without a row of its own takes hex on 5x5's."""
    row = BY_GAME.get(f"{game}{game_params.get('board_size', '')}", BY_GAME["hex5"])
    return {**SHARED, **dict(zip(SIZED, row, strict=True))}


def _params(game: str, game_params: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, float]:
    unknown = sorted(set(given) - set(PARAMS))
    if unknown:
        name = unknown[0]
        raise BadJob(f"params.{name} = {given[name]!r}: no such hyper-parameter; known are {', '.join(PARAMS)}")
    read: dict[str, float] = {name: PARAMS[name].read(f"params.{name}", value) for name, value in given.items()}
    return {**defaults(game, game_params), **read}


def _text(data: Mapping[str, Any], name: str, default: str = "") -> str:
    value = data.get(name, default)
    if not isinstance(value, str) or not value:
        raise BadJob(f"{name} = {value!r}: write a text that is not empty")
    return value


def _table(data: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = data.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise BadJob(f"{name} = {value!r}: write a JSON object")
    return value


def _paths(name: str, value: Any) -> tuple[Path, ...]:
    paths = [] if value is None else value if isinstance(value, list) else [value]
    check: Callable[[Any], bool] = lambda one: isinstance(one, str) and Path(one).is_file()  # noqa: E731
    for one in paths:
        if not check(one):
            raise BadJob(f"inputs.{name} = {one!r}: no such file; write the path of a file that is there")
    return tuple(Path(one) for one in paths)
