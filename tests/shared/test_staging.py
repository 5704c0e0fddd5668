"""What rules see of a fact is what the message says, read by SQL instead of by row."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sparring.contracts.sync import BatchStored, GamesRecorded
from sparring.contracts.training_slots import SlotClaimed
from sparring.envelope import CORRELATION, ORDER, Envelope, encode
from sparring.errors import NewerVersion, SparringError, Undecodable, UnknownMessage
from sparring.log.headers import Headers, block_of
from sparring.log.interface import Raw
from sparring.projection import Projection
from sparring.read_model import ReadModel, on
from sparring.schema_files import sample_path
from sparring.testing import at

TABLE = """
create table if not exists all_facts (
    sequence bigint primary key, "at" timestamptz, subject varchar, owner varchar, entity varchar, type varchar,
    data varchar, fact_id varchar, caused_by_order varchar, correlation varchar
)
"""
ALL = """
insert into all_facts
select sequence, "at", subject, owner, entity, type, data, fact_id, caused_by_order, correlation from facts
"""
MODEL = ReadModel("all", 1, TABLE, [on(GamesRecorded, BatchStored, sql=ALL)])


def message(
    sequence: int, cls: type[Any] = GamesRecorded, wired: bool = True, body: bytes | None = None, **headers: str | None
) -> Raw:
    """The sample of the contract; a header given as None is left out."""
    fact = cls.model_validate_json(sample_path(cls).read_text())
    subject, plain, text = encode(fact, Envelope("id0", "sync/0", at(5), "order0", "cause0", "hex5_2p-1", ""))
    changed = {name.replace("_", "-"): value for name, value in headers.items()}
    merged: Mapping[str, str] = {name: value for name, value in (dict(plain) | changed).items() if value is not None}
    if wired:
        merged = Headers(block_of(merged))
    return Raw(sequence, at(100 + sequence), subject, merged, text if body is None else body)


def rows(*batch: Raw) -> list[tuple[Any, ...]]:
    projection = Projection(":memory:", [MODEL])
    projection.apply(batch)
    return projection.con.execute("select * from all_facts order by sequence").fetchall()


def expected(raw: Raw) -> tuple[Any, ...]:
    _, owner, entity, _, name = raw.subject.split(".")
    moment = datetime.fromisoformat(raw.headers.get("ce-time") or raw.at.isoformat()).astimezone(UTC)
    said = (raw.headers.get("ce-id", ""), raw.headers.get(ORDER, ""), raw.headers.get(CORRELATION, ""))
    return raw.sequence, moment, raw.subject, owner, entity, name, raw.body.decode(), *said


VALUES = st.text(st.characters(exclude_characters="\r\n", exclude_categories=("Cs",)), max_size=40).map(str.strip)


@given(st.lists(st.tuples(st.booleans(), VALUES, VALUES, VALUES), min_size=1, max_size=5))
@example([(True, "", "\x1e", "ü\x1e"), (False, "ce-id: x", "y", "")])
def test_a_rule_sees_what_the_headers_say(said: list[tuple[bool, str, str, str]]) -> None:
    batch = [
        message(number, wired=wired, **{"ce_id": id.replace("\x1e", " ").strip(), CORRELATION: line.replace("\x1e", " ").strip(),
                                        "X": other})
        for number, (wired, id, line, other) in enumerate(said, start=1)
    ]  # fmt: skip
    assert rows(*batch) == [expected(raw) for raw in batch]


def test_facts_without_a_moment_or_a_version_are_read_as_they_are_decoded() -> None:
    batch = [message(1, ce_time=None), message(2, BatchStored), message(3, ce_dataschema=None), message(4, SlotClaimed)]
    found = rows(*batch)
    assert [json.loads(row[6]) for row in found] == [json.loads(raw.body) for raw in batch[:3]]
    assert [row[:6] for row in found] == [expected(raw)[:6] for raw in batch[:3]]


@pytest.mark.parametrize(
    ("raw", "error", "words"),
    [
        (message(2, body=b'{"batch": "\x1e"}'), Undecodable, "at sequence 2"),
        (message(2, body=b'{"batch": "\xff"}'), Undecodable, "at sequence 2"),
        (message(2, ce_dataschema=None, body=b"{"), Undecodable, "at sequence 2"),
        (message(2)._replace(subject="evt.sync.batch.b.NeverHeardOf"), UnknownMessage, "at sequence 2"),
        (message(2, ce_dataschema="sync/GamesRecorded.v99"), NewerVersion, "v99"),
    ],
)  # fmt: skip
def test_what_can_not_be_read_stops_the_read_model_where_it_stands(
    raw: Raw, error: type[SparringError], words: str
) -> None:
    projection = Projection(":memory:", [MODEL])
    projection.apply([message(1)])
    with pytest.raises(error, match=words):
        projection.apply([raw, message(3)])
    assert projection.position == 1
    projection.apply([message(2), message(3)])
    assert projection.con.execute("select sequence from all_facts order by 1").fetchall() == [(1,), (2,), (3,)]


def test_a_file_reads_of_a_fact_only_what_its_rules_name() -> None:
    few = ReadModel("few", 1, "create table if not exists few (b varchar primary key)",
                    [on(GamesRecorded, sql="insert or ignore into few select data->>'$.batch' from facts where type = 'GamesRecorded'")])  # fmt: skip
    projection = Projection(":memory:", [few])
    projection.apply([message(1)])
    columns = projection.con.execute("select column_name from duckdb_columns() where table_name = 'facts'").fetchall()
    assert columns == [("type",), ("data",)]
    assert projection.con.execute("select count(*) from few").fetchone() == (1,)


def test_a_file_is_opened_anew_now_and_then_and_lacks_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """DuckDB keeps memory for each row that is put in place of another one, until its file is closed."""
    monkeypatch.setattr("sparring.projection.REOPEN_AFTER", 3)
    projection, seen = Projection(tmp_path / "read.duckdb", [MODEL]), []
    for number in range(1, 11):
        projection.apply([message(number)])
        seen.append(projection.con)
        assert projection.position == number
    assert len({id(con) for con in seen}) == 4
    assert [row[0] for row in projection.con.execute("select sequence from all_facts order by 1").fetchall()] == [
        *range(1, 11)
    ]
    # what failed meanwhile is made good by the next batch
    projection.con.close()
    monkeypatch.setattr("sparring.projection.REOPEN_AFTER", 0)
    projection.apply([message(11)])
    assert projection.position == 11
    projection.close()
