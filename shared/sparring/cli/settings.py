"""`spar settings`: every number that a service decides by, and where it came from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from sparring.catalogue import services
from sparring.cli.common import AsJson, At, Data, Nats, Rows, footer, plain, print_json, table, with_reader
from sparring.contracts.settings import SETTINGS_ADOPTED
from sparring.errors import BadInput
from sparring.hearing import heard
from sparring.reader import Reader
from sparring.settings import read_settings


def settings(
    service: Annotated[str, typer.Argument(help="One service; default: all.")] = "",
    config: Annotated[Path | None, typer.Option(help="A TOML file; default: SPARRING_CONFIG.")] = None,
    nats: Nats = None,
    data: Data = None,
    at: At = None,
    as_json: AsJson = False,
) -> None:
    """Values, origins and the hash that decisions name.

    As they would be if the services started here; with `--nats`, `--data` or `--at` as the services of that cluster said
    that they run, and since when.
    """
    known = {one.name: one for one in services()}
    if service and service not in known:
        raise BadInput(f"SERVICE = {service!r}; there are: {', '.join(known)}")
    chosen = [service] if service else list(known)
    if nats or data or at:
        if config is not None:
            raise BadInput(f"--config {config}: what a cluster's services adopted is in its log; leave the file out")
        _adopted(chosen, nats, data, at, as_json)
        return
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


def _adopted(chosen: list[str], nats: str | None, data: str | None, at: str | None, as_json: bool) -> None:
    async def ask(reader: Reader) -> dict[str, dict[str, Any]]:
        return {name: told for name in chosen if (told := await _told(reader, name))}

    found, as_of = with_reader(nats, data, at, ask)
    if as_json:
        print_json(as_of, settings=found)
        return
    for name in chosen:
        told = found.get(name, {})
        rows: Rows = [{"field": key, "value": json.dumps(value)} for key, value in told.get("values", {}).items()]
        title = f"{name} ({told['hash']}, build {told['build']}, since {plain(told['since'])})" if told else name
        table(rows, ("field", "value"), title, empty="it has not said yet under which settings it runs")
    footer(as_of)


async def _told(reader: Reader, name: str) -> dict[str, Any]:
    """What the service said last, up to the moment that is read; {} when nothing."""
    end, last = reader.projection.position, None
    for raw in await reader.log.load(f"evt.{name}.settings.{name}.*"):
        one = heard(raw) if raw.sequence <= end else None
        if one is not None and isinstance(one.fact, SETTINGS_ADOPTED[name]):
            last = one
    if last is None:
        return {}
    fact = last.fact.model_dump(mode="json")
    return {"hash": fact["hash"], "build": fact["build"], "since": last.at, "values": fact["values"]}
