"""How well the cluster is: the score with its parts, and everything open with since, owner and remedy."""

from __future__ import annotations

from typing import Any

from sparring.reader import Reader

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
    from health_cluster where state <> 'running' or override_until is not null
)
order by case severity when 'critical' then 0 when 'warning' then 1 else 2 end, since, kind, about
"""


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
