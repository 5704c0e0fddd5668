"""Lane files: TOML in, lanes out, and a clear sentence for every mistake."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from sparring.contracts.lanes import LaneSpec
from sparring.errors import BadInput

PLACEHOLDERS = {"verify": ("{file}",)}
DEFAULT_PLACEHOLDERS = ("{job}", "{out}")
# the steps of `auto` that run a program of the lane's own
PROGRAMS = ("export", "train", "evaluate")


def load_lanes(path: Path) -> list[LaneSpec]:
    """The lanes of the file, in its order. Raises BadInput naming file, lane, field, value and remedy."""
    try:
        data = tomllib.loads(path.read_text())
    except OSError as error:
        raise BadInput(f"lane file {path}: {error.strerror}; name a readable TOML file with --lanes") from error
    except tomllib.TOMLDecodeError as error:
        raise BadInput(f"lane file {path} is not TOML: {error}") from error
    extra = sorted(set(data) - {"lane"})
    if extra:
        raise BadInput(f"lane file {path}: unknown table {extra[0]!r}; every lane is a [[lane]] table")
    tables = data.get("lane", [])
    if not isinstance(tables, list) or not tables:
        raise BadInput(f"lane file {path} holds no lane; begin one with [[lane]]")
    lanes = [_lane(path, number, table) for number, table in enumerate(tables, start=1)]
    names = [lane.name for lane in lanes]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise BadInput(f"lane file {path}: lane {twice[0]!r} stands there twice; names are unique")
    return lanes


def _lane(path: Path, number: int, table: Any) -> LaneSpec:
    name = table.get("name", f"number {number}") if isinstance(table, dict) else f"number {number}"
    try:
        lane = LaneSpec.model_validate(table)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "lane"
        value = "" if first["type"] == "missing" else f" = {first['input']!r}"
        remedy = "remove it or see examples/hex/lanes.toml" if first["type"] == "extra_forbidden" else first["msg"]
        raise BadInput(f"lane file {path}, lane {name}: {where}{value}: {remedy}") from error
    for kind, argv in lane.commands.items():
        for placeholder in PLACEHOLDERS.get(kind, DEFAULT_PLACEHOLDERS):
            if not any(placeholder in part for part in argv):
                raise BadInput(
                    f"lane file {path}, lane {name}: commands.{kind} = {list(argv)!r}: "
                    f"the program never learns its {placeholder}; add that placeholder"
                )
    if "selfplay" not in lane.commands:
        raise BadInput(f"lane file {path}, lane {name}: commands.selfplay is missing; name the program that plays")
    lacks = lacking(lane)
    if lacks:
        raise BadInput(f"lane file {path}, lane {name}: {lacks}")
    return lane


def lacking(lane: LaneSpec) -> str:
    """Which step of an enabled lane goes by itself and has no program, with the remedy; '' when none does."""
    missing = [step for step in PROGRAMS if step in lane.auto and step not in lane.commands]
    if not lane.enabled or not missing:
        return ""
    return (
        f"auto = {list(lane.auto)!r}: commands.{missing[0]} is missing; "
        f"name the program of that step, or leave the step out of auto"
    )
