"""`spar diff`: what changed between two moments, in the domain's words."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import typer

from sparring.cli.changes import changes
from sparring.cli.common import AsJson, Data, Nats, plain, print_json
from sparring.errors import BadInput
from sparring.place import find
from sparring.reader import AsOf, Reader


def diff(
    before: Annotated[str, typer.Argument(metavar="FROM", help="A sequence or a time.")],
    after: Annotated[str, typer.Argument(metavar="TO", help="A sequence or a time; default: now.")] = "",
    nats: Nats = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """What changed between two moments: lanes, models, data, nodes, slots, what is wrong, settings."""

    async def run() -> tuple[dict[str, list[str]], AsOf, AsOf]:
        place = find(nats, data)
        async with await Reader.open(place, before) as one, await Reader.open(place, after or None) as two:
            if one.as_of.sequence > two.as_of.sequence:
                raise BadInput(
                    f"FROM = {before!r} is sequence {one.as_of.sequence}, after TO, {two.as_of.sequence}: swap them"
                )
            return await changes(one, two), one.as_of, two.as_of

    found, old, new = asyncio.run(run())
    if as_json:
        moments = {"from": old.sequence, "to": new.sequence, "from_at": plain(old.at), "to_at": plain(new.at)}
        print_json(None, **moments, changes=found)
        return
    for about, lines in found.items():
        typer.echo(about)
        for line in lines:
            typer.echo(f"  {line}")
    typer.echo(("" if found else "nothing changed ") + f"({_from_to(old, new)})")


def _from_to(old: AsOf, new: AsOf) -> Any:
    return f"from {old.sequence} to {new.sequence}: {new.sequence - old.sequence} facts"
