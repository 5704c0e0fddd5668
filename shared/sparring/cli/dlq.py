"""`spar dlq`: what was given up, why, and what can be done about it."""

from __future__ import annotations

import asyncio
import getpass
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from sparring.catalogue import services
from sparring.cli.common import AsJson, At, Data, Nats, footer, plain, print_json, table, with_reader
from sparring.cli.control import order
from sparring.cli.overview import OPEN_LETTERS
from sparring.contracts.health import DiscardDeadLetter, RedriveDeadLetter
from sparring.errors import BadInput
from sparring.place import find
from sparring.reader import AsOf, Reader, instant
from sparring.rehearsal import Rehearsed, original, rehearse

app = typer.Typer(help="Dead letters: nothing fails in silence, nothing is ever deleted.", no_args_is_help=True)
GROUPS = f"""
select fingerprint "group", consumer, any_value(exception) exception, count(*) letters,
    count(*) filter (state in {OPEN_LETTERS}) waiting, count(*) filter (state = 'recovered') recovered,
    count(*) filter (state = 'abandoned') abandoned, count(*) filter (state = 'discarded') discarded,
    min(recorded_at) first, max(recorded_at) last, any_value(reason) reason
from health_letters group by fingerprint, consumer order by last desc
"""
COLUMNS = (
    "letter", "message_type:message", "state", "transient", "exception", "reason", "redrives", "due_at:due",
    "fingerprint:group",
)  # fmt: skip

Letters = Annotated[list[str] | None, typer.Argument(help="Letters, as `spar dlq ls` names them.")]
Group = Annotated[str, typer.Option("--group", help="All of one cause, as `spar dlq stats` names it.")]
Consumer = Annotated[str, typer.Option("--consumer", help="Those of one consumer.")]
Since = Annotated[str, typer.Option("--since", help="From this letter's original on: a stream sequence, or a time.")]
Until = Annotated[str, typer.Option("--until", help="Up to and with this one: a stream sequence, or a time.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do it; without it a group or a range is only shown.")]


@dataclass(frozen=True)
class Choice:
    """Letters named one by one, or all of a group, a consumer, a range; '' narrows nothing."""

    letters: Sequence[str] = ()
    group: str = ""
    consumer: str = ""
    since: str = ""
    until: str = ""

    def required(self) -> Choice:
        """Raises BadInput when nothing was chosen, or two ways at once."""
        ranged = any((self.group, self.consumer, self.since, self.until))
        if not self.letters and not ranged:
            raise BadInput("LETTER is missing: name letters, or choose with --group, --consumer, --since, --until")
        if self.letters and ranged:
            raise BadInput("LETTER and --group, --consumer, --since, --until are two ways to choose: use one of them")
        return self


def chosen(reader: Reader, choice: Choice, *, all: bool = False) -> list[dict[str, Any]]:
    """The letters that were chosen, oldest first; open ones unless named or asked for. Raises BadInput for unknown."""
    rows = reader.rows("select * from health_letters order by recorded_at, letter")
    known = {row["letter"]: row for row in rows}
    for letter in choice.letters:
        if letter not in known:
            raise BadInput(f"LETTER = {letter!r} is not known; list them with `spar dlq ls --all`")
    if choice.letters:
        return [known[letter] for letter in choice.letters]
    if choice.group and choice.group not in {row["fingerprint"] for row in rows}:
        raise BadInput(f"--group {choice.group!r} is not known; see spar dlq stats")
    if choice.consumer:
        declared = {durable.name for service in services() for durable in service.durables()}
        consumers = declared | {row["consumer"] for row in rows}
        if choice.consumer not in consumers:
            raise BadInput(f"--consumer {choice.consumer!r} is not one of {', '.join(sorted(consumers))}")
    return [
        row
        for row in rows
        if (all or row["state"] in OPEN_LETTERS)
        and choice.group in ("", row["fingerprint"])
        and choice.consumer in ("", row["consumer"])
        and (not choice.since or _reaches(row, choice.since, "--since") >= 0)
        and (not choice.until or _reaches(row, choice.until, "--until") <= 0)
    ]


def _reaches(row: Mapping[str, Any], moment: str, option: str) -> int:
    """-1, 0 or 1: the letter is before, at or after the moment."""
    if moment.isdigit():
        mine, other = row["stream_sequence"], int(moment)
        return int((mine > other) - (mine < other))
    when = instant(moment, option)
    return int((row["recorded_at"] > when) - (row["recorded_at"] < when))


@app.command("ls")
def ls(
    group: Group = "",
    consumer: Consumer = "",
    since: Since = "",
    until: Until = "",
    nats: Nats = None,
    data: Data = None,
    at: At = None,
    as_json: AsJson = False,
    all: Annotated[bool, typer.Option("--all", help="Those that need nothing any more, too.")] = False,
) -> None:
    """Letters that wait, newest first."""

    async def ask(reader: Reader) -> Any:
        return chosen(reader, Choice((), group, consumer, since, until), all=all)[::-1]

    rows, as_of = with_reader(nats, data, at, ask)
    if as_json:
        print_json(as_of, letters=rows)
        return
    table(rows, COLUMNS, empty="no dead letters")
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
        rows,
        (
            "group",
            "consumer",
            "exception",
            "letters",
            "waiting",
            "recovered",
            "abandoned",
            "discarded",
            "last",
            "reason",
        ),
        empty="no dead letters",
    )
    footer(as_of)


@app.command("show")
def show(
    letter: Annotated[str, typer.Argument(help="As `spar dlq ls` names it.")],
    nats: Nats = None,
    data: Data = None,
    at: At = None,
    as_json: AsJson = False,
) -> None:
    """One letter: the exception, the trace, and the whole original."""

    async def ask(reader: Reader) -> Any:
        row = chosen(reader, Choice([letter]))[0]
        _, row["headers"], body = await original(reader, row)
        row["body"] = body.decode(errors="replace")
        return row

    row, as_of = with_reader(nats, data, at, ask)
    if as_json:
        print_json(as_of, **row)
        return
    for name, value in row.items():
        typer.echo(f"{name:<16} {value}")
    footer(as_of)


@app.command("rehearse")
def rehearse_letters(
    letters: Letters = None,
    group: Group = "",
    consumer: Consumer = "",
    since: Since = "",
    until: Until = "",
    force: Annotated[bool, typer.Option("--force", help="As if expired orders were obeyed.")] = False,
    artifacts: Annotated[str, typer.Option(help="Where the services keep artifacts.")] = "nats://ARTIFACTS",
    nats: Nats = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """What a redrive would do: the consumer's own handler, of this build, over a log that keeps nothing.

    Exit code 1 when one of them would fail again.
    """
    choice = Choice(letters or (), group, consumer, since, until).required()

    async def run() -> tuple[list[Rehearsed], AsOf]:
        async with await Reader.open(find(nats, data)) as reader:
            rows = chosen(reader, choice)
            return [await rehearse(reader, row, artifacts=artifacts, force=force) for row in rows], reader.as_of

    told, as_of = asyncio.run(run())
    if as_json:
        print_json(as_of, letters=[_plain(one) for one in told])
    else:
        for one in told:
            typer.echo(f"{one.letter}: {one.outcome}" + (f": {one.error}" if one.error else ""))
            for message in (*one.facts, *one.orders):
                typer.echo(f"    {type(message).__name__} {message.model_dump_json(exclude={'spec'})}")
        footer(as_of)
    raise typer.Exit(1 if any(one.error for one in told) else 0)


def _plain(one: Rehearsed) -> dict[str, Any]:
    messages = {"facts": one.facts, "orders": one.orders}
    bodies = {
        name: [{"type": type(message).__name__, **message.model_dump(mode="json")} for message in some]  # type: ignore[attr-defined]
        for name, some in messages.items()
    }
    return {"letter": one.letter, "outcome": one.outcome, "error": one.error, **plain(bodies)}


@app.command("redrive")
def redrive(
    letters: Letters = None,
    group: Group = "",
    consumer: Consumer = "",
    since: Since = "",
    until: Until = "",
    force: Annotated[bool, typer.Option("--force", help="Expired orders and recovered letters too.")] = False,
    yes: Yes = False,
    nats: Nats = None,
    data: Data = None,
) -> None:
    """Sends letters to the consumer that failed, and to nobody else."""
    names = _selected(Choice(letters or (), group, consumer, since, until).required(), yes, nats, data)
    order(nats, data, *(RedriveDeadLetter(letter=one, by=getpass.getuser(), force=force) for one in names))


@app.command("discard")
def discard(
    reason: Annotated[str, typer.Option(help="Why it is right to give them up; stands in the fact.")],
    letters: Letters = None,
    group: Group = "",
    consumer: Consumer = "",
    since: Since = "",
    until: Until = "",
    yes: Yes = False,
    nats: Nats = None,
    data: Data = None,
) -> None:
    """Gives letters up, as a fact; nothing is deleted."""
    names = _selected(Choice(letters or (), group, consumer, since, until).required(), yes, nats, data)
    order(nats, data, *(DiscardDeadLetter(letter=one, by=getpass.getuser(), reason=reason) for one in names))


def _selected(choice: Choice, yes: bool, nats: str | None, data: str | None) -> list[str]:
    """The names to act on. A group or range without --yes is only shown: exit code 1, nothing done."""

    async def ask(reader: Reader) -> Any:
        return chosen(reader, choice)

    rows, as_of = with_reader(nats, data, None, ask)
    if choice.letters or yes:
        return [row["letter"] for row in rows]
    table(rows, COLUMNS, empty="no dead letters")
    typer.echo(f"{len(rows)} letters; nothing was done: add --yes")
    footer(as_of)
    raise typer.Exit(1)
