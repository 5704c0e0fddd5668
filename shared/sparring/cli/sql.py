"""`spar sql`: the tables of all services at one moment."""

from __future__ import annotations

from typing import Annotated, Any

import duckdb
import typer

from sparring.cli.common import AsJson, At, Data, Nats, footer, print_json, table, with_reader
from sparring.errors import BadInput
from sparring.reader import Reader


def sql(
    query: Annotated[
        str, typer.Argument(help='SQL; without it the tables are listed. Quote "at": it is a keyword.')
    ] = "",
    nats: Nats = None,
    data: Data = None,
    at: At = None,
    as_json: AsJson = False,
) -> None:
    """Asks anything: every service's tables stand side by side, at one sequence. Changes nothing: it is a private copy."""

    async def ask(reader: Reader) -> Any:
        listing = (
            "select table_name, string_agg(column_name, ', ' order by column_index) columns from duckdb_columns() "
            "where table_name in (select table_name from duckdb_tables() where not temporary union "
            "select view_name from duckdb_views() where not internal) group by 1 order by 1"
        )
        try:
            return reader.rows(query or listing)
        except duckdb.Error as error:
            raise BadInput(f"QUERY: {error}; `spar sql` lists the tables") from error

    rows, as_of = with_reader(nats, data, at, ask)
    if as_json:
        print_json(as_of, rows=rows)
        return
    table(rows, tuple(rows[0]) if rows else (), empty="no rows")
    footer(as_of)
