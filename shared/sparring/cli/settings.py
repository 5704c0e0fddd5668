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
    chosen = [service] if service else list(known)
    found = {name: read_settings(known[name].settings, name, file=config) for name in chosen}
    if as_json:
        shown = {
            name: {
                "hash": values.fingerprint(),
                "values": {key: {"value": plain(one.value), "origin": one.source} for key, one in origins.items()},
            }
            for name, (values, origins) in found.items()
        }
        typer.echo(json.dumps(shown))
        return
    for name, (values, origins) in found.items():
        rows = [{"field": key, "value": json.dumps(plain(v.value)), "origin": v.source} for key, v in origins.items()]
        table(rows, ("field", "value", "origin"), f"{name} ({values.fingerprint()})")
