"""`spar settings`: every number that a service decides by, and where it came from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from sparring.catalogue import services
from sparring.cli.common import AsJson, plain, table
from sparring.errors import BadInput
from sparring.settings import read_settings


def settings(
    service: Annotated[str, typer.Argument(help="One service; default: all.")] = "",
    config: Annotated[Path | None, typer.Option(help="A TOML file; default: SPARRING_CONFIG.")] = None,
    as_json: AsJson = False,
) -> None:
    """Values, origins and the hash that decisions name."""
    known = {one.name: one for one in services()}
    if service and service not in known:
        raise BadInput(f"SERVICE = {service!r}; there are: {', '.join(known)}")
    result = {}
    for name in [service] if service else known:
        values, origins = read_settings(known[name].settings, name, file=config)
        result[name] = {"hash": values.fingerprint(), "values": {
            key: {"value": plain(one.value), "origin": one.source} for key, one in origins.items()}}  # fmt: skip
    if as_json:
        typer.echo(json.dumps(result))
        return
    for name, one in result.items():
        rows = [
            {"field": key, "value": json.dumps(v["value"]), "origin": v["origin"]} for key, v in one["values"].items()
        ]  # type: ignore[attr-defined]
        table(rows, ("field", "value", "origin"), f"{name} ({one['hash']})")
