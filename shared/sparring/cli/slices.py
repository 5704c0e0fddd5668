"""`spar export` and `spar replay`: a piece of the log as a file, and every read over it without a cluster."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Annotated

import typer

from sparring.cli.common import AsJson, Data, Nats, print_json
from sparring.client import lane_of
from sparring.connection import close
from sparring.errors import BadInput
from sparring.hearing import heard
from sparring.known import check_known
from sparring.log.interface import Raw, until
from sparring.log.slice import Slice, SliceLog, SliceWriter
from sparring.place import SLICES, find
from sparring.reader import connect, moment, open_log


def export(
    file: Annotated[Path, typer.Argument(help="Where to: NAME.ndjson, which a person can read, or NAME.parquet.")],
    first: Annotated[str, typer.Option("--from", help="A sequence or a time; default: the log's beginning.")] = "1",
    last: Annotated[str, typer.Option("--to", help="A sequence or a time, with it; default: now.")] = "",
    lane: Annotated[str, typer.Option(help="Only facts about this lane.")] = "",
    nats: Nats = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Writes a piece of the log to a file; artifacts stay where they are, by reference.

    A file that begins at 1 and holds all lanes answers every read as the cluster did; any other says what it lacks.
    """
    writer = SliceWriter(file)
    head, count = asyncio.run(_export(writer, first, last, lane, nats, data))
    if as_json:
        print_json(None, file=str(file), first=head.first, last=head.last, lane=head.lane, facts=count)
        return
    typer.echo(
        f"{count} of {head} in {file} ({file.stat().st_size / 1e6:.1f} MB); look at it: spar replay {file} status"
    )


async def _export(
    writer: SliceWriter, first: str, last: str, lane: str, nats: str | None, data: str | None
) -> tuple[Slice, int]:
    nc = await connect(find(nats, data))
    try:
        log, identity = await open_log(nc)
        if lane:
            await check_known(log, "--lane", lane)
        end = await moment(log, last, "--to") if last else await log.end()
        start = int(first) if first.isdigit() else await moment(log, first, "--from") + 1
        if start > end:
            raise BadInput(f"--from {first} is after --to {last or end}: nothing lies between")
        head = Slice(log=identity, first=start, last=end, lane=lane)
        async with aclosing(until(log, end, start - 1)) as batches:
            coming = (raw for raw in _coming(batches, asyncio.get_running_loop()) if not lane or _about(raw, lane))
            return head, await asyncio.to_thread(writer.write, head, coming)
    finally:
        await close(nc)


def _coming(batches: AsyncIterator[list[Raw]], loop: asyncio.AbstractEventLoop) -> Iterator[Raw]:
    """For a thread: what the loop reads, batch by batch."""
    while (batch := asyncio.run_coroutine_threadsafe(anext(batches, None), loop).result()) is not None:
        yield from batch


def _about(raw: Raw, lane: str) -> bool:
    one = heard(raw)
    return one is not None and lane_of(one) in ("", lane)


def replay(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="What `spar export` wrote.")],
    command: Annotated[
        list[str] | None, typer.Argument(help="Any command that reads, with its options: status, why LANE, sql …")
    ] = None,
) -> None:
    """Opens a piece of a log without a cluster: `spar replay FILE why hex5_2p --at 500`."""
    if file.suffix not in SLICES or not file.is_file():
        raise BadInput(f"FILE = {str(file)!r}: there is no such slice; `spar export FILE` writes one")
    words = [*(command or ()), *context.args]
    if words:
        from sparring.cli.app import build

        code = build()([*words, "--data", str(file)], standalone_mode=False)
        if isinstance(code, int) and code:
            raise typer.Exit(code)
        return
    log = SliceLog(file)
    kinds = Counter(type(one.fact).__name__ for raw in _all(log) if (one := heard(raw)) is not None)
    typer.echo(f"{file}: {log.head}" + ("" if log.head.whole else "; what came before or beside is not in it"))
    for name, count in kinds.most_common():
        typer.echo(f"{count:>9}  {name}")


def _all(log: SliceLog) -> Iterator[Raw]:
    for batch in log.raws():
        yield from batch
