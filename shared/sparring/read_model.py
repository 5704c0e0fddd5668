"""Tables for questions: SQL over batches of facts, with rows and position in one transaction.

A read model never sees facts one by one. Facts arrive in batches of any size in a staging table `facts`:
`sequence` BIGINT, `"at"` TIMESTAMPTZ (quoted, AT is a keyword), `subject`, `owner`, `entity`, `type`, `data` JSON in the
newest version, `fact_id`, `caused_by_order`, `correlation`. Each rule is SQL that runs when the batch holds at least one
fact of its types; a column that no rule of a file names is not there.
The result must not depend on where one batch ends and the next begins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sparring.contracts.base import Fact


@dataclass(frozen=True)
class Rule:
    """SQL over the staging table `facts`, run in the order in which a read model lists its rules.

    The statement must filter by type itself (`where type = 'SlotClaimed'`).
    """

    types: tuple[type[Fact], ...]
    sql: str


def on(*types: type[Fact], sql: str) -> Rule:
    return Rule(types, sql)


@dataclass(frozen=True)
class ReadModel:
    """A few tables of one service. `version` goes up with every change of tables or rules: files are rebuilt then.

    `tables` are `create table if not exists` statements; each table has a primary key, so that rebuilds can be compared
    row by row. Table names begin with the service's short name.
    """

    name: str
    version: int
    tables: str
    rules: Sequence[Rule]

    @property
    def types(self) -> frozenset[str]:
        return frozenset(t.__name__ for rule in self.rules for t in rule.types)
