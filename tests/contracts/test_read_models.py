"""Every rule of every read model is SQL that DuckDB takes, and hears facts that exist."""

from __future__ import annotations

import pytest

from sparring.catalogue import read_models
from sparring.contracts.base import FACTS
from sparring.envelope import Envelope, encode
from sparring.log.interface import Raw
from sparring.projection import Projection
from sparring.read_model import ReadModel
from sparring.schema_files import sample_path
from sparring.testing import at


@pytest.mark.parametrize("model", read_models(), ids=lambda model: model.name)
def test_every_rule_runs_on_an_empty_batch(model: ReadModel) -> None:
    projection = Projection(":memory:", [model])
    for rule in model.rules:
        projection.con.execute(rule.sql)
    for table in projection.tables():
        if not table.endswith("_steps"):
            assert projection.con.execute(f"select count(*) from {table}").fetchone() == (0,)


@pytest.mark.parametrize("model", read_models(), ids=lambda model: model.name)
def test_rows_do_not_depend_on_how_the_log_is_cut_into_batches(model: ReadModel) -> None:
    samples = [(cls, sample_path(cls)) for cls in FACTS.values() if sample_path(cls).exists()]
    raws = []
    for number, (cls, path) in enumerate(samples * 2, start=1):
        fact = cls.model_validate_json(path.read_text()).model_copy(update={cls.key: f"k{number}"})
        raws.append(Raw(number, at(number), *encode(fact, Envelope(f"f{number}", "test", at(number)))))

    def rows(size: int) -> dict[str, list[tuple[object, ...]]]:
        projection = Projection(":memory:", [model])
        for first in range(0, len(raws), size):
            projection.apply(raws[first : first + size])
        return {
            name: sorted(projection.con.execute(f"from {name}").fetchall(), key=repr) for name in projection.tables()
        }

    assert rows(len(raws)) == rows(1) == rows(7)
