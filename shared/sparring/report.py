"""How well the cluster is: the score with its parts, and everything open with since, owner and remedy."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from sparring.contracts.parts import how_to_start
from sparring.contracts.readings import ServiceBeat
from sparring.decider import Reading
from sparring.reader import Reader

SILENT_S = 15.0

SCORE = 'select value, grade, terms, "at" from health_score'
CLUSTER = "select * from health_cluster"
NODES = "select state, count(*) n from health_nodes where state <> 'forgotten' group by state order by state"
PRESSURE = "select * from health_queues where level <> 'none' order by lane, name"
BREAKERS = "select * from health_breakers where state <> 'closed' order by since"
RECOVERIES = "select * from health_recoveries where state <> 'succeeded' order by since"
THRESHOLDS = 'select threshold, value, least, most, "at" from health_thresholds order by threshold'
# every kind of open issue with the same columns
ISSUES = """
select * from (
    select 'alarm' kind, about, severity, text what, since, whose, remedy, null::timestamptz until
    from health_alarms where state = 'raised'
    union all
    select 'back-pressure', queue, 'note', level || ': ' || printf('%.0f of %.0f/%.0f', coalesce(depth, 0.0), soft, hard), "at",
        case name when 'training-data' then 'pipeline' when 'evaluation' then 'lifecycle' when 'promotion' then 'lifecycle'
            when 'export' then 'pipeline' when 'nodes' then 'a person' else 'sync' end,
        case name when 'nodes' then 'spar nodes; free disk or memory there'
            when 'pending-games' then 'spar data' when 'sync' then 'spar data' else 'spar why ' || lane end, null
    from health_queues where level <> 'none'
    union all
    select 'breaker', breaker, 'note', state || ' for the ' || times || '. time: ' || reason, since, 'health',
        case when node <> '' then 'spar why ' || node else 'spar tasks --lane ' || lane end, until
    from health_breakers where state <> 'closed'
    union all
    select 'recovery', recovery, 'note', state || ', attempt ' || attempts || ': ' || action || ', ' || reason, since,
        case state when 'escalated' then 'a person' else 'health' end,
        'spar why ' || case when task <> '' then task else node end, until
    from health_recoveries where state in ('trying', 'failed', 'escalated')
    union all
    select 'switch', 'cluster', 'note', state || ' by ' || by_whom || ': ' || reason, "at",
        case when automatic then 'health' else 'a person' end, 'spar resume', override_until
    from health_cluster where state <> 'running'
    union all
    select 'switch', 'cluster', 'note', 'health switches nothing by itself: ' || by_whom || ' overrides it', "at", by_whom,
        'nothing: it ends by itself', override_until
    from health_cluster where state = 'running' and override_until > (select max("at") from positions)
)
order by case severity when 'critical' then 0 when 'warning' then 1 else 2 end, since, kind, about
"""


def _beats(readings: Mapping[str, Reading]) -> dict[str, float]:
    """Seconds since the last beat of each service that was heard within 15 minutes."""
    found: dict[str, float] = {}
    for one in readings.values():
        if isinstance(one.data, ServiceBeat):
            found[one.data.service] = min(one.age_s, found.get(one.data.service, one.age_s))
    return found


def up(readings: Mapping[str, Reading]) -> list[str]:
    """Services that beat in the last 15 s; of a past moment nobody knows."""
    return sorted(name for name, age_s in _beats(readings).items() if age_s < SILENT_S)


def unheard(reader: Reader, readings: Mapping[str, Reading]) -> dict[str, Any] | None:
    """The issue that health can't raise: it does not beat, and what it said last is all that is known. None: it beats, or
    a past moment is asked about."""
    age_s = _beats(readings).get("health")
    if reader.past or (age_s is not None and age_s < SILENT_S):
        return None
    since = None if age_s is None else datetime.now(UTC) - timedelta(seconds=age_s)
    last = (
        "has not beaten as far as the server knows, which keeps 15 minutes"
        if age_s is None
        else f"has not beaten for {age_s:.0f} s"
    )
    return {
        "about": "health", "since": since, "whose": "a person",
        "what": f"health {last}: the score, the alarms and the states of nodes are its last word",
        "remedy": how_to_start("health"),
    }  # fmt: skip


def report(reader: Reader) -> dict[str, Any]:
    """`score` (None while health has said nothing), `cluster`, `nodes` by state, `issues`, `pressure`, `thresholds`."""
    score, cluster = reader.rows(SCORE), reader.rows(CLUSTER)
    return {
        "score": score[0] if score else None,
        "cluster": cluster[0] if cluster else {"state": "running"},
        "nodes": {row["state"]: row["n"] for row in reader.rows(NODES)},
        "issues": reader.rows(ISSUES),
        "pressure": reader.rows(PRESSURE),
        "thresholds": reader.rows(THRESHOLDS),
    }
