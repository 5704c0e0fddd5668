"""`spar doctor`: the live system against the catalogue; every finding says what to do."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from sparring.cli.common import AsJson, At, Data, Nats, print_json
from sparring.connection import close
from sparring.doctor import Examination, Finding, broken_invariants, examine, exit_code
from sparring.place import Place, find, recall
from sparring.reader import connect, history, moment


def doctor(
    nats: Nats = None,
    data: Data = None,
    log: Annotated[bool, typer.Option("--log", help="Check the invariants over the whole log, too.")] = False,
    monitoring: Annotated[str, typer.Option(help="The server's HTTP address; default: the one of --data.")] = "",
    at: At = None,
    as_json: AsJson = False,
) -> None:
    """Checks wiring, streams, consumers, storage, services, nodes and clocks.

    Exit code 0: well; 1: a warning; 2: something critical, or no server answers. With `--at`, and for a slice of a log,
    only the log is checked, from its first fact to that moment: nothing else of the past is kept.
    """
    place = find(nats, data)
    past = at is not None or place.slice is not None
    found = asyncio.run(_past(place, at) if past else _found(place, monitoring, log))
    if as_json:
        print_json(None, findings=[asdict(one) for one in found], healthy=exit_code(found) == 0)
    else:
        for one in found:
            typer.echo(f"{one.severity:<8} {one.about}: {one.text}\n         → {one.remedy}")
        typer.echo(
            f"{len(found)} findings"
            if found
            else "all well: the log's invariants hold"
            if past
            else f"all well: wiring, streams, consumers, storage, services, nodes, clocks{', invariants' if log else ''}"
        )
    raise typer.Exit(exit_code(found))


async def _past(place: Place, at: str | None) -> list[Finding]:
    async with history(place) as log:
        end = await log.end() if at is None else await moment(log, at)
        return [one async for one in broken_invariants(log, end)]


async def _found(place: Place, monitoring: str, log: bool) -> list[Finding]:
    refused: list[str] = []

    async def on_error(error: Exception) -> None:
        if "permissions violation" in str(error).lower():
            refused.append(str(error))

    nc = await connect(place, on_error=on_error)
    known = recall(Path(place.data)) if place.data else None
    try:
        return await examine(Examination(nc, monitoring or (known or {}).get("monitoring", ""), refused), log=log)
    finally:
        await close(nc)
