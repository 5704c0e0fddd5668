"""`spar dlq`: what was given up, why, and what can be done about it."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from sparring.cli.common import AsJson, At, Data, Nats, footer, print_json, table, with_reader
from sparring.cli.control import discard, redrive
from sparring.errors import BadInput
from sparring.reader import Reader

app = typer.Typer(help="Dead letters: nothing fails in silence, nothing is ever deleted.", no_args_is_help=True)
GROUPS = """
select fingerprint, consumer, any_value(exception) exception, count(*) letters,
    count(*) filter (state in ('pending', 'abandoned')) waiting, min(recorded_at) first, max(recorded_at) last,
    any_value(reason) reason
from health_letters group by fingerprint, consumer order by last desc
"""


@app.command("ls")
def ls(
    nats: Nats = None,
    data: Data = None,
    at: At = None,
    as_json: AsJson = False,
    all: Annotated[bool, typer.Option("--all", help="Those that need nothing any more, too.")] = False,
) -> None:
    """Letters that wait, newest first."""

    async def ask(reader: Reader) -> Any:
        return reader.rows(
            "select * from health_letters where ? or state in ('pending', 'redriven', 'abandoned') "
            "order by recorded_at desc",
            [all],
        )

    rows, as_of = with_reader(nats, data, at, ask)
    if as_json:
        print_json(as_of, letters=rows)
        return
    columns = ("letter", "message_type:message", "state", "transient", "exception", "reason", "redrives", "due_at:due")
    table(rows, columns, empty="no dead letters")
    footer(as_of)


@app.command("stats")
def stats(nats: Nats = None, data: Data = None, at: At = None, as_json: AsJson = False) -> None:
    """Letters grouped by cause."""

    async def ask(reader: Reader) -> Any:
        return reader.rows(GROUPS)

    rows, as_of = with_reader(nats, data, at, ask)
    if as_json:
        print_json(as_of, groups=rows)
        return
    table(
        rows, ("fingerprint", "consumer", "exception", "letters", "waiting", "last", "reason"), empty="no dead letters"
    )
    footer(as_of)


@app.command("show")
def show(
    letter: Annotated[str, typer.Argument(help="As `spar dlq ls` names it.")],
    nats: Nats = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """One letter: the exception, the trace, and the whole original."""

    async def ask(reader: Reader) -> Any:
        found = reader.rows("select * from health_letters where letter = ?", [letter])
        if not found:
            raise BadInput(f"LETTER = {letter!r} is not known; list them with `spar dlq ls --all`")
        row = found[0]
        subject = f"dlq.{row['consumer']}.{row['stream']}.{row['stream_sequence']}"
        original = await reader.nc.jetstream(timeout=5).get_last_msg("DLQ", subject)
        row["headers"] = dict(original.headers or {})
        row["body"] = (original.data or b"").decode(errors="replace")
        return row

    row, as_of = with_reader(nats, data, None, ask)
    if as_json:
        print_json(as_of, **row)
        return
    for name, value in row.items():
        typer.echo(f"{name:<16} {value}")
    footer(as_of)


app.command("redrive")(redrive)
app.command("discard")(discard)
