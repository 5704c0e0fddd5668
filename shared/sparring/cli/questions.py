"""The reading commands that are one question and one table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import typer

from sparring.cli.common import AsJson, At, Data, Nats, Rows, footer, print_json, say_unheard, table, with_reader
from sparring.reader import Reader
from sparring.report import unheard


@dataclass(frozen=True)
class Question:
    """SQL over all services' tables, and the columns that people see. `of_health`: true only while health beats."""

    sql: str
    columns: tuple[str, ...]
    empty: str
    of_health: bool = False


ALARMS = Question(
    "select * from health_alarms where $all or state = 'raised' order by raised_at desc",
    ("alarm", "about", "severity", "text", "remedy", "whose", "since", "times", "state"),
    "no alarms",
    of_health=True,
)
DATASETS = Question(
    "select iteration, lane, dataset[:12] dataset, games, positions, new_games, new_positions, left_out, sealed_at "
    "from sync_datasets order by sealed_at desc limit 20",
    (
        "iteration",
        "dataset",
        "games",
        "positions",
        "new_games",
        "new_positions",
        "left_out:batches left out",
        "sealed_at:sealed",
    ),
    "no data set yet",
)


def answer(
    question: Question, nats: str | None, data: str | None, at: str | None, as_json: bool, name: str, **values: object
) -> None:
    """Asks and prints."""

    async def ask(reader: Reader) -> tuple[Rows, dict[str, Any] | None]:
        silent = unheard(reader, await reader.readings()) if question.of_health else None
        cursor = reader.projection.con.execute(question.sql, values) if values else None
        if cursor is None:
            return reader.rows(question.sql), silent
        names = [str(column[0]) for column in cursor.description or []]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()], silent

    (rows, silent), as_of = with_reader(nats, data, at, ask)
    if as_json:
        print_json(as_of, **{name: rows}, **({"unheard": silent} if question.of_health else {}))
        return
    table(rows, question.columns, empty=question.empty)
    say_unheard(silent)
    footer(as_of)


def alarms(
    nats: Nats = None,
    data: Data = None,
    at: At = None,
    as_json: AsJson = False,
    all: Annotated[bool, typer.Option("--all", help="Cleared ones too.")] = False,
) -> None:
    """What needs a person, and what to do about it."""
    answer(ALARMS, nats, data, at, as_json, "alarms", all=all)


def datasets(nats: Nats = None, data: Data = None, at: At = None, as_json: AsJson = False) -> None:
    """The newest data sets: how many games went into which iteration."""
    answer(DATASETS, nats, data, at, as_json, "datasets")
