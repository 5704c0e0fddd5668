"""Every rule of every read model is SQL that DuckDB takes, and hears facts that exist."""

from __future__ import annotations

import pytest

from sparring.catalogue import read_models
from sparring.projection import Projection
from sparring.read_model import ReadModel


@pytest.mark.parametrize("model", read_models(), ids=lambda model: model.name)
def test_every_rule_runs_on_an_empty_batch(model: ReadModel) -> None:
    projection = Projection(":memory:", [model])
    for rule in model.rules:
        projection.con.execute(rule.sql)
    for table in projection.tables():
        if not table.endswith("_steps"):
            assert projection.con.execute(f"select count(*) from {table}").fetchone() == (0,)
