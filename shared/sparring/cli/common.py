"""What all commands share: where to look, as of when, and how to show it."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from sparring.errors import BadInput
from sparring.place import find
from sparring.reader import AsOf, Reader

Nats = Annotated[str | None, typer.Option("--nats", help="Server to read; default: the one of --data.")]
Data = Annotated[str | None, typer.Option("--data", help="Folder of a `spar up`; default .sparring.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
At = Annotated[str | None, typer.Option("--at", help="A sequence or a time: the state as of then.")]

Rows = list[dict[str, Any]]
# the past moment as of which something is shown; None: now
_shown_at: ContextVar[datetime | None] = ContextVar("shown_at", default=None)


def with_reader(nats: str | None, data: str | None, at: str | None, ask: Callable[[Reader], Awaitable[Any]]) -> Any:
    """Folds the log up to `at` and asks; returns (answer, as of when). What is shown then counts from that moment."""
    place = find(nats, data)

    async def run() -> tuple[Any, AsOf]:
        async with await Reader.open(place, at) as reader:
            return await ask(reader), reader.as_of

    answer, as_of = asyncio.run(run())
    _shown_at.set(as_of.at if at is not None or place.slice is not None else None)
    return answer, as_of


def lanes_of(reader: Reader) -> list[str]:
    """The names of the lanes that are registered."""
    return [row["lane"] for row in reader.rows("select lane from pipeline_lanes order by lane")]


def check_lane(reader: Reader, lane: str) -> None:
    """Raises BadInput for a lane that is not registered: of a misspelt one "nothing" would be a false answer."""
    if lane and lane not in (known := lanes_of(reader)):
        raise BadInput(f"lane = {lane!r} is not registered; there are: {', '.join(known) or 'none'}")


def plain(value: Any) -> Any:
    """A value as JSON can hold it."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def print_json(as_of: AsOf | None, **parts: Any) -> None:
    head = {"as_of": as_of.sequence, "at": plain(as_of.at)} if as_of is not None else {}
    typer.echo(json.dumps(head | {name: plain(value) for name, value in parts.items()}))


def cell(value: Any) -> str:
    """A value as people read it in a table."""
    match value:
        case None | "":
            return "–"
        case bool():
            return "yes" if value else "no"
        case datetime():
            return ago(value)
        case float():
            return f"{value:.2f}"
        case dict() | list():
            return json.dumps(plain(value), separators=(",", ":"))[:80]
        case _:
            return str(value)


def ago(then: datetime, now: datetime | None = None) -> str:
    """`12 s ago`, `in 3 min`, as of the moment that is shown."""
    seconds = ((now or _shown_at.get() or datetime.now(UTC)) - then).total_seconds()
    text = span(abs(seconds))
    return f"{text} ago" if seconds >= 0 else f"in {text}"


def counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def elo(value: float) -> str:
    """Whole Elo with a sign; nothing is minus zero."""
    return f"{round(value):+d}"


def interval(statistics: Mapping[str, Any]) -> str:
    """The Elo of a match with its 95 % interval."""
    return f"{elo(statistics['elo'])} [{elo(statistics['elo_low'])}, {elo(statistics['elo_high'])}]"


def span(seconds: float) -> str:
    """A duration in the unit that people would use."""
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def table(rows: Sequence[dict[str, Any]], columns: Sequence[str], title: str = "", empty: str = "nothing yet") -> None:
    """Prints the rows; `columns` are keys, `key:heading` renames one."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    # a pipe has no width: wide enough that nothing is folded
    console = Console() if sys.stdout.isatty() else Console(width=240)
    if not rows:
        console.print(f"{title + ': ' if title else ''}{empty}", highlight=False)
        return
    grid = Table(title=title or None, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False, expand=False)
    pairs = [one.partition(":")[::2] for one in columns]
    for key, heading in pairs:
        numeric = all(isinstance(row.get(key), int | float | None) for row in rows)
        grid.add_column(heading or key.replace("_", " "), justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        grid.add_row(*(cell(row.get(key)) for key, _ in pairs))
    console.print(grid)


def say_unheard(issue: dict[str, Any] | None) -> None:
    """What is shown is the last word of a service that is silent (`report.unheard`)."""
    if issue is not None:
        typer.echo(f"{issue['what']}; {issue['remedy']}")


def footer(as_of: AsOf) -> None:
    typer.echo(f"({as_of})")
