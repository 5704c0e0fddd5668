"""`spar rebuild`: the tables of a service, folded anew and compared with its own."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from sparring.catalogue import services
from sparring.cli.common import AsJson, Data, Nats, print_json
from sparring.connection import close
from sparring.errors import BadInput
from sparring.place import find
from sparring.reader import connect, open_log
from sparring.rebuild import Live, first_difference, live_tables, rebuilt, swap
from sparring.service import Service
from sparring.snapshots import Snapshots


def rebuild(
    service: Annotated[str, typer.Argument(help="A service, or all.")],
    check: Annotated[bool, typer.Option("--check", help="Compare; happens always.")] = False,  # noqa: ARG001
    swap: Annotated[
        bool, typer.Option("--swap", help="Then put the rebuilt tables in place of the live ones.")
    ] = False,
    replica: Annotated[str, typer.Option(help="Which replica's tables.")] = "0",
    nats: Nats = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Folds the log anew and compares every row with the service's own tables at the same sequence.

    A running service is asked for a copy of its tables as they are now; of one that is down the file under --data is
    read. Beside it, the same tables are folded from sequence 1 (archive and stream) up to the copy's sequence, and
    every table is compared: columns, rows by primary key, values. The first difference is printed: table, key, column,
    both values. Exit code 1 when there is one.
    """
    known = {one.name: one for one in services() if one.read_models}
    if service != "all" and service not in known:
        raise BadInput(f"SERVICE = {service!r} has no tables; there are: all, {', '.join(known)}")
    chosen = list(known.values()) if service == "all" else [known[service]]
    found = asyncio.run(_rebuild(nats, data, chosen, replica, swap, quiet=as_json))
    same = all(one["difference"] is None for one in found)
    if as_json:
        print_json(None, services=found, same=same)
    raise typer.Exit(0 if same else 1)


async def _rebuild(
    nats: str | None, data: str | None, chosen: list[Service], replica: str, put: bool, *, quiet: bool
) -> list[dict[str, Any]]:
    place = find(nats, data)
    nc = await connect(place)
    lives: list[Live] = []
    try:
        log, identity = await open_log(nc)
        snapshots = Snapshots(nc, identity)
        with tempfile.TemporaryDirectory(prefix="spar-rebuild-") as folder:
            work = Path(folder)
            for one in chosen:
                lives.append(
                    await live_tables(nc, snapshots, one, replica, Path(place.data) if place.data else None, work)
                )
            with progress_to(max(live.sequence for live in lives), quiet) as show:
                files = await rebuilt(log, lives, work, show)
            found = []
            for live in lives:
                name = live.service.name
                difference = await asyncio.to_thread(first_difference, live.copy, files[name])
                swapped = await swap(nc, snapshots, live, replica, files[name]) if put else None
                found.append(
                    {"service": name, "sequence": live.sequence, "running": live.file is None, "swapped": swapped,
                     "difference": asdict(difference) if difference else None}
                )  # fmt: skip
                if not quiet:
                    typer.echo(f"{name}: {difference or 'every row is equal'} (at {live.sequence})")
                    if put:
                        typer.echo(f"{name}: the rebuilt tables are in place")
            return found
    finally:
        for live in lives:
            live.close()
        await close(nc)


@contextmanager
def progress_to(end: int, quiet: bool) -> Any:
    """A bar on a terminal, nothing elsewhere; yields what takes the sequence."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("folding", total=end)
        show: Callable[[int], None] = lambda sequence: bar.update(task, completed=sequence)  # noqa: E731
        yield show
