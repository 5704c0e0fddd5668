"""What `spar health` and `client.health()` answer: the score, its parts, and every open issue with since, owner, remedy."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise
from typing import Any

from health_world import Watched, failed, finished, heart, lane
from hypothesis import given as any_given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from health.read_models.health import HEALTH
from health.read_models.recovery import RECOVERY
from sparring.contracts.health import Escalated, RecoveryAttempted, RecoveryFailed, RecoverySucceeded, ThresholdMoved
from sparring.log.interface import Raw
from sparring.projection import Projection
from sparring.report import report
from sparring.testing import at


def story() -> Watched:
    """Nodes come, press and are lost; a breaker opens, trials fail; a recovery is tried, fails, and is escalated."""
    one = Watched(lane())
    one.hears(*(heart(f"n{n}", machine=f"m{n}", disk=10 if n == 0 else 2**40) for n in range(3)), silent=("sync",))
    one.passes(30)
    one.add(*(failed(f"t{n}", node="n1") for n in range(5)))
    one.passes(90, 3)
    one.add(failed("trial", node="n1"))
    one.passes(5)
    one.add(ThresholdMoved(threshold="heartbeat-limit", value=22, before=20, least=15, most=25, terms=()))
    one.hears(heart("n0", machine="m0"), (heart("n1", machine="m1"), 99.0), heart("n2", machine="m2"))
    one.passes(5)
    one.add(finished("ok", node="n1"))
    trouble = {"recovery": "task-t-1", "node": "n1", "task": "t"}
    one.add(RecoveryAttempted(**trouble, action="restart task", attempt=1, limit=2, reason="stands still", until=at(900)),
            RecoveryFailed(**trouble, action="restart task", attempt=1, reason="stands still"),
            Escalated(**trouble, attempts=2, reason="stands still", quiet_until=at(9_000)))  # fmt: skip
    one.add(RecoveryAttempted(recovery="node-n2", node="n2", action="drain node", attempt=1, limit=3, reason="r", until=at(900)),
            RecoverySucceeded(recovery="node-n2", node="n2", attempt=1, reason="well"))  # fmt: skip
    return one


def raws(world: Watched) -> list[Raw]:
    return list(world.log._messages)


class Tables:
    """A reader's half: the same rows that a reader would have."""

    def __init__(self, batches: Sequence[Sequence[Raw]]) -> None:
        self.projection = Projection(":memory:", [HEALTH, RECOVERY])
        for batch in batches:
            if batch:
                self.projection.apply(batch)

    def rows(self, sql: str) -> list[dict[str, Any]]:
        import json

        cursor = self.projection.con.execute(sql)
        names = [(str(one[0]), str(one[1]) == "JSON") for one in cursor.description or []]
        return [
            {name: json.loads(v) if js and isinstance(v, str) else v for (name, js), v in zip(names, row, strict=True)}
            for row in cursor.fetchall()
        ]

    def everything(self) -> dict[str, Any]:
        names = ("nodes", "queues", "cluster", "score", "alarms", "breakers", "recoveries", "thresholds")
        return {name: self.rows(f"select * from health_{name} order by all") for name in names}


STORY = raws(story())
WHOLE = Tables([STORY]).everything()


@hypothesis_settings(deadline=None, max_examples=15)
@any_given(st.sets(st.integers(1, len(STORY) - 1), max_size=12))
def test_rows_do_not_depend_on_where_a_batch_ends(cuts: set[int]) -> None:
    ends = [0, *sorted(cuts), len(STORY)]
    assert Tables([STORY[a:b] for a, b in pairwise(ends)]).everything() == WHOLE


def test_every_open_issue_says_since_when_whose_it_is_and_what_to_do() -> None:
    found = report(Tables([STORY]))  # type: ignore[arg-type]
    assert {issue["kind"] for issue in found["issues"]} >= {"alarm", "breaker", "recovery"}
    for issue in found["issues"]:
        assert isinstance(issue["since"], datetime) and issue["whose"] and issue["remedy"] and issue["what"], issue
    assert {term["name"] for term in found["score"]["terms"]} >= {"nodes", "breakers", "errors", "recovery"}
    assert found["thresholds"][0]["value"] == 22


def test_what_needs_a_person_most_comes_first() -> None:
    ranks = {"critical": 0, "warning": 1, "note": 2}
    found = [ranks[issue["severity"]] for issue in report(Tables([STORY]))["issues"]]  # type: ignore[arg-type]
    assert found == sorted(found)


def test_an_escalated_recovery_is_a_persons_and_one_that_helped_is_no_issue() -> None:
    issues = {issue["about"]: issue for issue in report(Tables([STORY]))["issues"] if issue["kind"] == "recovery"}  # type: ignore[arg-type]
    assert issues["task-t-1"]["whose"] == "a person" and "node-n2" not in issues
