"""The tables of `selfplay-orch`: what they say, wherever one batch of facts ends and the next begins."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import duckdb
from hypothesis import given as any_given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from orch_world import World

from selfplay_orch.read_models.tasks import TASKS
from sparring.contracts.health import NodeLost
from sparring.contracts.selfplay_orch import ReportTaskFailed, ReportTaskFinished
from sparring.decider import Recorded
from sparring.subjects import subject_of

STAGING = """
create temp table facts (
    sequence bigint, "at" timestamptz, subject varchar, owner varchar, entity varchar, id varchar, type varchar,
    version integer, data json, fact_id varchar, caused_by_order varchar, correlation varchar
)
"""
TABLES = ("orch_tasks", "orch_denials", "orch_shares")


def tables(batches: Sequence[Sequence[Recorded]]) -> dict[str, list[dict[str, Any]]]:
    con = duckdb.connect(":memory:")
    con.execute("set timezone = 'UTC'")
    con.execute(STAGING)
    con.execute(TASKS.tables)
    for batch in batches:
        heard = [one for one in batch if type(one.fact).__name__ in TASKS.types]
        for one in heard:
            fact = one.fact
            con.execute("insert into facts values (?, ?, ?, ?, ?, ?, ?, ?, ?, '', '', '')", [
                one.sequence, one.at, subject_of(fact), fact.owner, fact.entity, fact.id, type(fact).__name__,
                fact.version, fact.model_dump_json()])  # fmt: skip
        kinds = {type(one.fact) for one in heard}
        con.begin()
        for rule in TASKS.rules:
            if kinds.intersection(rule.types):
                con.execute(rule.sql)
        con.execute("delete from facts")
        con.commit()
    found = {}
    for table in TABLES:
        rows = con.execute(f"select * from {table} order by all").fetchall()
        names = [one[0] for one in con.description or ()]
        found[table] = [dict(zip(names, row, strict=True)) for row in rows]
    return found


def story() -> World:
    """A day in the life: finishes, a failure that is retried, an orphan with a late result, denials, new shares."""
    world = World().join("n1", 2).lane("hex").lane("ttt").request("x", "export").request("big", "train", gpu=True)
    world.plan()
    where = world.picture.all.tasks["x"].node
    world.start("x").after(3).order(ReportTaskFailed(task="x", attempt=1, node=where, reason="exit 1"))
    world.after(5).plan()
    world.start("x")
    played = world.running("selfplay")[0]
    world.start(played).after(9).finish(played, seconds=9)
    world.tell(NodeLost(node="n1", boot="b1", reason="silent", silent_s=20, limit_s=20))
    world.plan()
    world.join("n2", 3).after(60).plan()
    late = ReportTaskFinished(task="x", attempt=2, node="n1", seconds=70, files=(), evidence={"games": 1})
    world.order(late)
    world.after(1).start("x").finish("x", seconds=1.5)
    world.after(11).press("hex", "pending-games", "stop").plan()
    world.join("gpu", 1, gpus=("H100",)).after(60).plan()
    world.start("big")
    return world


STORY = story()


def test_tasks_stand_where_their_last_fact_put_them() -> None:
    rows = {row["task"]: row for row in tables([STORY.log])["orch_tasks"]}
    x, big = rows["x"], rows["big"]
    assert (x["kind"], x["lane"], x["state"], x["node"], x["attempt"]) == ("export", "hex", "finished", "n2", 3)
    assert (x["seconds"], x["late_results"], x["reason"]) == (1.5, 1, "the node is lost")
    assert x["requested_at"] < x["assigned_at"] < x["started_at"] and x["ended_at"] >= x["started_at"]
    assert (big["state"], big["node"], big["ended_at"]) == ("started", "gpu", None)
    open_ = {name for name, row in rows.items() if row["state"] in ("requested", "assigned", "started")}
    assert open_ == set(STORY.picture.all.tasks)


def test_a_newer_assignment_has_not_started_yet() -> None:
    world = World().join("n1", 1).lane("hex", enabled=False).request("x", "export")
    world.plan()
    world.start("x").join("n1", 1, boot="b2").plan()
    (row,) = tables([world.log])["orch_tasks"]
    assert (row["state"], row["attempt"], row["started_at"]) == ("assigned", 2, None)


def test_denials_stand_until_a_placement_lifts_them() -> None:
    before = World().join("n1", 1).lane("hex", enabled=False).request("big", "train", gpu=True)
    before.plan()
    (row,) = tables([before.log])["orch_denials"]
    assert (row["kind"], row["lane"], row["node"], row["reason"]) == ("train", "hex", "", "GPU")
    assert (row["actual"], row["lim"]) == (0.0, 1.0)
    assert json.loads(row["terms"])[0]["name"] == "nodes: GPU"
    reasons = [(row["kind"], row["reason"]) for row in tables([STORY.log])["orch_denials"]]
    assert ("train", "GPU") not in reasons and ("selfplay", "back-pressure") in reasons


def test_shares_are_those_of_the_last_plan_with_every_term() -> None:
    rows = tables([STORY.log])["orch_shares"]
    assert {row["lane"]: row["share"] for row in rows} == STORY.picture.all.plan.shares == {"hex": 0.0, "ttt": 1.0}
    assert "staleness" in {term["name"] for term in json.loads(rows[0]["terms"])}


@hypothesis_settings(max_examples=25, deadline=None)
@any_given(st.sets(st.integers(1, len(STORY.log) - 1), max_size=12))
def test_the_tables_do_not_depend_on_where_batches_end(cuts: set[int]) -> None:
    ends = [0, *sorted(cuts), len(STORY.log)]
    batches = [STORY.log[begin:end] for begin, end in pairwise(ends)]
    assert tables(batches) == tables([STORY.log])


def test_one_fact_at_a_time_gives_the_same_tables() -> None:
    assert tables([[one] for one in STORY.log]) == tables([STORY.log])
