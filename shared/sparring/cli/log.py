"""`spar log`: how long the stream is, and moving what is old out of it."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Annotated, Any

import typer

from sparring import clock
from sparring.archive import Archived
from sparring.archive import archive as archived_up_to
from sparring.artifacts import open_store
from sparring.cli.common import AsJson, Data, Nats, print_json, table
from sparring.connection import close
from sparring.log.archived import ArchivedLog, archived
from sparring.place import find
from sparring.reader import connect, moment, open_log
from sparring.streams import EVENTS

app = typer.Typer(help="The log's growth: what the stream holds, what the archive holds.", no_args_is_help=True)
Creds = Annotated[str, typer.Option("--creds", help="Credentials of the user that may purge.")]


@app.command("archive")
def archive(
    before: Annotated[str, typer.Option("--before", help="Up to and with this sequence, or this time.")],
    artifacts: Annotated[str, typer.Option(help="Where the services keep artifacts.")] = "nats://ARTIFACTS",
    creds: Creds = "",
    nats: Nats = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Moves older facts to the artifact store as Parquet, then purges the stream. Every read answers as before.

    Entities that are not over are carried forward first. Killed anywhere, it is finished by the next run.
    """

    async def run() -> Archived:
        nc = await connect(find(nats, data, creds))
        try:
            log, identity = await open_log(nc)
            store = await open_store(artifacts, nc.jetstream(timeout=10))
            say = (lambda _: None) if as_json else typer.echo
            up_to = await moment(log, before, "--before")
            return await archived_up_to(nc, up_to, store, identity, clock.now(), say)
        finally:
            await close(nc)

    done = asyncio.run(run())
    if as_json:
        print_json(None, **asdict(done))
        return
    typer.echo(f"archived up to {done.through}: {done.facts} facts, {done.bytes / 1e6:.1f} MB")


@app.command("status")
def status(nats: Nats = None, data: Data = None, as_json: AsJson = False) -> None:
    """What the stream holds, and each segment of the archive."""

    async def run() -> dict[str, Any]:
        nc = await connect(find(nats, data))
        try:
            log = ArchivedLog(nc)
            state = (await nc.jetstream(timeout=5).stream_info(EVENTS)).state
            told = await archived(log.stream)
            return {"first": state.first_seq, "last": state.last_seq, "facts": state.messages, "bytes": state.bytes,
                    "archived_through": told.through if told else 0,
                    "segments": [one.model_dump(mode="json") for one in told.segments] if told else []}  # fmt: skip
        finally:
            await close(nc)

    found = asyncio.run(run())
    if as_json:
        print_json(None, **found)
        return
    typer.echo(f"stream: {found['first']} to {found['last']}, {found['facts']} messages, {found['bytes'] / 1e6:.1f} MB")
    table(found["segments"], ("first", "last", "facts", "bytes", "url"), title="archive", empty="nothing is archived")
