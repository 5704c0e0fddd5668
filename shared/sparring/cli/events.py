"""`spar events`: the log itself, read by a person."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Annotated, Any

import typer

from sparring.cli.common import At, Data, Nats, plain
from sparring.client import lane_of
from sparring.decider import Recorded
from sparring.errors import BadInput
from sparring.hearing import heard
from sparring.known import check_known
from sparring.log.interface import Raw, until
from sparring.place import find
from sparring.reader import History, history, moment

LAST = 50


def events(
    nats: Nats = None,
    data: Data = None,
    lane: Annotated[str, typer.Option(help="Only facts about this lane.")] = "",
    type: Annotated[str, typer.Option("--type", help="Only facts of this class, e.g. ModelPromoted.")] = "",
    since: Annotated[
        int | None, typer.Option(min=1, help="From this sequence on; default: the last 50 facts that match.")
    ] = None,
    at: At = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as facts happen.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """What happened, in order; `--at` ends at that moment."""
    from sparring.contracts.base import FACTS

    names = {name for _, _, name in FACTS}
    if type and type not in names:
        close = ", ".join(sorted(name for name in names if type.lower() in name.lower())) or "see schemas/"
        raise BadInput(f"--type = {type!r} is no fact; did you mean: {close}")
    asyncio.run(_events(nats, data, lane, type, since, at, follow, as_json))


async def _events(
    nats: str | None,
    data: str | None,
    lane: str,
    name: str,
    since: int | None,
    at: str | None,
    follow: bool,
    as_json: bool,
) -> None:
    async with history(find(nats, data)) as log:
        end = await moment(log, at) if at else await log.end()

        def wanted(raw: Raw) -> Recorded | None:
            one = heard(raw)
            named = one is not None and name in ("", type(one.fact).__name__)
            return one if one is not None and named and lane in ("", lane_of(one)) else None

        if since is None:
            found = await _last(log, end, wanted)
            for one in found:
                _print(one, as_json)
            if not found and lane:
                await check_known(log, "--lane", lane)
            if not found:
                typer.echo(f"none in {end} facts", err=True)
        start = end if since is None else since - 1
        async for batch in log.follow(start) if follow else until(log, end, start):
            for raw in batch:
                fresh = wanted(raw)
                if fresh is not None:
                    _print(fresh, as_json)


async def _last(log: History, end: int, wanted: Callable[[Raw], Recorded | None]) -> list[Recorded]:
    """The last 50 that are wanted, up to the sequence `end`: it looks back ten times as far until it has them."""
    back, found = LAST, list[Recorded]()
    while end:
        start = max(0, end - back)
        found = [one async for batch in until(log, end, start) for raw in batch if (one := wanted(raw)) is not None]
        if len(found) >= LAST or start == 0:
            break
        back *= 10
    return found[-LAST:]


def _print(one: Recorded, as_json: bool) -> None:
    name, body = type(one.fact).__name__, one.fact.model_dump(mode="json")
    if as_json:
        typer.echo(json.dumps({"sequence": one.sequence, "at": plain(one.at), "type": name, "correlation": one.correlation,
                               "cause": one.cause, "fact": body}))  # fmt: skip
        return
    told = " ".join(f"{key}={_short(value)}" for key, value in body.items() if value not in (None, "", [], {}))
    typer.echo(f"{one.sequence:>7} {one.at:%H:%M:%S} {one.fact.owner:<14} {name:<22} {told}")


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
    if len(text) == 64 and text.isalnum():
        return text[:10]
    return text if len(text) <= 60 else text[:57] + "..."
