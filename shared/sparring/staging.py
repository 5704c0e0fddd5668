"""The table `facts` that the rules of read models look at: a batch of the log goes in as text, DuckDB reads it.

Python looks at each message's subject alone. What a rule needs of its headers and body is searched by SQL, column by
column, outside of the interpreter's lock: row by row a replay took half as long again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import NamedTuple

import duckdb

from sparring.contracts.base import FACTS, Fact
from sparring.envelope import CORRELATION, ORDER, current, foreign
from sparring.errors import Undecodable, UnknownMessage
from sparring.log.headers import block_of
from sparring.log.interface import Raw
from sparring.read_model import ReadModel
from sparring.subjects import CARRIED

# a batch arrives as one text per column; subjects and JSON texts have this character only escaped
BETWEEN = b"\x1e"
TIMED = b"\r\nce-time:"


def _header(name: str, most: int = 1_000) -> str:
    """SQL for a header's value of at most so many characters; '' where the message has none."""
    begin = f"instr(head, E'\\r\\n{name}:')"
    value = f"trim(split_part(substr(head, {begin} + {len(name) + 3}, {most}), E'\\r\\n', 1))"
    return f"case when {begin} > 0 then {value} else '' end"


# the columns of `facts`, each as SQL over what arrives
COLUMNS = {
    "sequence": "sequence::bigint",
    "at": f"({_header('ce-time', 50)})::timestamptz",
    "subject": "subject",
    "owner": "split_part(subject, '.', 2)",
    "entity": "split_part(subject, '.', 3)",
    "type": "split_part(subject, '.', 5)",
    "data": "body::json",
    "fact_id": _header("ce-id"),
    "caused_by_order": _header(ORDER),
    "correlation": _header(CORRELATION),
}


class _Contract(NamedTuple):
    fact: type[Fact]
    # the line that says that a body is of this build's version
    line: bytes


class Staging:
    """`facts` has those columns that the models' rules name; the others are not read from the messages."""

    def __init__(self, con: duckdb.DuckDBPyConnection, models: Sequence[ReadModel]) -> None:
        self._con = con
        self._types = frozenset(name for model in models for name in model.types)
        said = {word for model in models for rule in model.rules for word in re.findall(r"\w+", rule.sql)}
        named = ", ".join(f'{sql} as "{name}"' for name, sql in COLUMNS.items() if name in said)
        arrived = ", ".join(
            f"unnest(string_split(${n}, '\x1e')) {name}"
            for n, name in enumerate(("sequence", "subject", "head", "body"), start=1)
        )
        self._read = f"select {named or 'sequence'} from (select {arrived})"
        con.execute(f"create temp table if not exists facts as {self._read} limit 0", ["", "", "", ""])

    def take(self, batch: Sequence[Raw]) -> set[str]:
        """Puts what a rule hears into `facts`, inside the caller's transaction; returns the types that are there.

        Raises Undecodable, UnknownMessage or NewerVersion.
        """
        heard: list[Raw] = []
        heads: list[bytes] = []
        kinds: set[str] = set()
        for raw in batch:
            contract = self._heard(raw)
            if contract is None:
                continue
            head = block_of(raw.headers)
            if contract.line not in head or TIMED not in head:
                if foreign(raw.subject, raw.headers):
                    continue
                raw = _mended(raw, contract)
                head = block_of(raw.headers)
            heard.append(raw)
            heads.append(head)
            kinds.add(contract.fact.__name__)
        if heard:
            self._con.execute(f"insert into facts {self._read}", _texts(heard, heads))
        return kinds

    def clear(self) -> None:
        self._con.execute("delete from facts")

    def _heard(self, raw: Raw) -> _Contract | None:
        """None for what no rule hears. Raises UnknownMessage where a contract is missing."""
        kind, owner, entity, _, name = raw.subject.split(".", 4)
        if kind != "evt" or owner.startswith("ext-") or name == CARRIED:
            return None
        cls = FACTS.get((owner, entity, name))
        if cls is None and foreign(raw.subject, raw.headers):
            return None
        if cls is None:
            raise UnknownMessage(f"no contract matches {raw.subject} at sequence {raw.sequence}; upgrade this reader")
        return _contract(cls) if name in self._types else None


@cache
def _contract(cls: type[Fact]) -> _Contract:
    return _Contract(cls, f"\r\nce-dataschema: {cls.schema_name()}\r\n".encode())


def _texts(raws: Sequence[Raw], heads: Sequence[bytes]) -> list[str]:
    joined = BETWEEN.join(heads)
    if joined.count(BETWEEN) >= len(heads):
        # a header may hold any character; none that is looked at holds this one
        joined = BETWEEN.join([head.replace(BETWEEN, b" ") for head in heads])
    between = BETWEEN.decode()
    return [
        between.join([str(raw.sequence) for raw in raws]),
        between.join([raw.subject for raw in raws]),
        joined.decode("utf-8", "replace"),
        _bodies(raws),
    ]


def _bodies(raws: Sequence[Raw]) -> str:
    """Raises Undecodable, naming the message, for what can't be a JSON text."""
    joined = BETWEEN.join([raw.body for raw in raws])
    try:
        if joined.count(BETWEEN) == len(raws) - 1:
            return joined.decode()
    except UnicodeDecodeError:
        pass
    for raw in raws:
        try:
            json.loads(raw.body.decode())
        except ValueError as error:
            raise Undecodable(f"{raw.subject} at sequence {raw.sequence}: {error}") from error
    raise AssertionError("a JSON text holds a control character")


def _mended(raw: Raw, contract: _Contract) -> Raw:
    """The message as this build would have written it. Raises Undecodable or NewerVersion."""
    at = raw.headers.get("ce-time") or raw.at.isoformat()
    try:
        data: Mapping[str, object] = current(contract.fact, raw.headers, json.loads(raw.body.decode()))
    except ValueError as error:
        raise Undecodable(f"{raw.subject} at sequence {raw.sequence}: {error}") from error
    headers = dict(raw.headers) | {"ce-time": at, "ce-dataschema": contract.fact.schema_name()}
    return raw._replace(headers=headers, body=json.dumps(data).encode())
