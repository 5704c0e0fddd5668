"""The rating beside a lane is the one of the whole pool, though only the matches that tell something of it are read."""

from __future__ import annotations

import json
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparring.catalogue import read_models
from sparring.cli import overview
from sparring.log.slice import SliceLog
from sparring.projection import Projection
from sparring.reader import Reader

MODELS = [f"m{number}" for number in range(4)]
# a candidate, one of the models before it or generation 0, and the counts of a match
MATCHES = st.lists(
    st.tuples(st.integers(0, 3), st.integers(-1, 2), st.lists(st.integers(0, 9), min_size=5, max_size=5)),
    min_size=2,
    max_size=12,
)


@pytest.fixture(scope="module")
def reader() -> Reader:
    return Reader(None, cast(SliceLog, None), Projection(":memory:", read_models()), None)


@settings(max_examples=200)
@given(MATCHES, st.sampled_from(MODELS))
def test_what_is_left_out_tells_nothing_of_the_model_in_production(reader: Reader, matches: Any, best: str) -> None:
    con = reader.projection.con
    con.execute("delete from lifecycle_matches; delete from lifecycle_models")
    con.execute("insert into lifecycle_models (lane, model, state) values ('hex', ?, 'production')", [best])
    measured: set[str] = set()
    for number, (candidate, before, counts) in enumerate(matches):
        # nobody gates against what was never measured
        baseline = MODELS[before] if 0 <= before < candidate and MODELS[before] in measured else ""
        measured |= {MODELS[candidate]} if sum(counts) else set()
        con.execute("insert into lifecycle_matches (gate, task, lane, candidate, baseline, counts, games) values "
                    "('g', ?, 'hex', ?, ?, ?, ?)",
                    [str(number), MODELS[candidate], baseline, json.dumps(counts), 2 * sum(counts)])  # fmt: skip
    whole, told = overview.ratings(reader), overview.ratings(reader, overview.TELLING)
    assert (("hex", best) in told) == (("hex", best) in whole) == (best in measured)
    if best in measured:
        assert told["hex", best].elo == pytest.approx(whole["hex", best].elo, abs=1e-6)
        assert told["hex", best].sigma == pytest.approx(whole["hex", best].sigma, rel=1e-6)


def test_thousands_of_candidates_that_met_one_model_alone_are_not_read(reader: Reader) -> None:
    con = reader.projection.con
    con.execute("delete from lifecycle_matches; delete from lifecycle_models")
    con.execute("insert into lifecycle_models (lane, model, state) values ('hex', 'best', 'production')")
    con.execute("insert into lifecycle_matches (gate, task, lane, candidate, baseline, counts, games) select "
                "'g' || n, '', 'hex', if(n = 0, 'best', 'c' || n), if(n = 0, '', 'best'), '[1, 2, 3, 4, 5]', 30 "
                "from range(3000) t(n)")  # fmt: skip
    assert [row["candidate"] for row in reader.rows(overview.TELLING)] == ["best"]
    assert len(overview.ratings(reader)) == 3001
