"""`orch_tasks`, `orch_denials`, `orch_shares`."""

from sparring.contracts.selfplay_orch import (
    LaneSharesPlanned,
    TaskAbandoned,
    TaskAssigned,
    TaskCancelled,
    TaskDenied,
    TaskFailed,
    TaskFinished,
    TaskOrphaned,
    TaskRequested,
    TaskStarted,
)
from sparring.read_model import ReadModel, on

TABLES = """
create table if not exists orch_tasks (
    task varchar primary key, kind varchar, lane varchar, iteration varchar, state varchar, node varchar,
    attempt bigint, reason varchar, requested_at timestamptz, assigned_at timestamptz, started_at timestamptz,
    ended_at timestamptz, "seconds" double, last_sequence bigint, late_results bigint, by_whom varchar
);
create table if not exists orch_denials (
    kind varchar, node varchar, lane varchar, reason varchar, actual double, lim double, "at" timestamptz,
    terms json, last_sequence bigint, primary key (kind, node, lane)
);
create table if not exists orch_shares (
    lane varchar primary key, share double, score double, terms json, "at" timestamptz, read_to bigint
);
"""

REQUESTED = """
insert or ignore into orch_tasks (task, kind, lane, iteration, state, requested_at, last_sequence, late_results, by_whom)
select data->>'$.task', data->>'$.spec.kind', data->>'$.spec.lane', data->>'$.spec.iteration', 'requested', "at",
    sequence, 0, data->>'$.by'
from facts where type = 'TaskRequested'
"""

# a newer assignment starts its node, attempt and times anew; what a later fact does not say stays
STATES = """
update orch_tasks set state = c.state, last_sequence = c.sequence,
    node = coalesce(c.node, orch_tasks.node), attempt = coalesce(c.attempt, orch_tasks.attempt),
    reason = coalesce(c.reason, orch_tasks.reason),
    assigned_at = coalesce(c.assigned_at, orch_tasks.assigned_at),
    started_at = case when c.begun > 0 then c.started_at else orch_tasks.started_at end,
    ended_at = coalesce(c.ended_at, orch_tasks.ended_at), "seconds" = coalesce(c."seconds", orch_tasks."seconds")
from (
    select data->>'$.task' task, max(sequence) sequence,
        arg_max(case type when 'TaskAssigned' then 'assigned' when 'TaskStarted' then 'started'
            when 'TaskFinished' then 'finished' when 'TaskFailed' then 'requested' when 'TaskOrphaned' then 'requested'
            when 'TaskCancelled' then 'cancelled' else 'abandoned' end, sequence) state,
        arg_max(data->>'$.node', sequence) node, arg_max((data->>'$.attempt')::bigint, sequence) attempt,
        arg_max(data->>'$.reason', sequence) reason,
        arg_max("at", sequence) filter (type = 'TaskAssigned') assigned_at,
        count(*) filter (type in ('TaskAssigned', 'TaskStarted')) begun,
        arg_max_null(case when type = 'TaskStarted' then "at" end, sequence)
            filter (type in ('TaskAssigned', 'TaskStarted')) started_at,
        arg_max("at", sequence) filter (type in ('TaskFinished', 'TaskCancelled', 'TaskAbandoned')) ended_at,
        arg_max((data->>'$.seconds')::double, sequence) filter (type = 'TaskFinished') as "seconds"
    from facts
    where type in ('TaskAssigned', 'TaskStarted', 'TaskFinished', 'TaskFailed', 'TaskOrphaned', 'TaskCancelled',
        'TaskAbandoned') and coalesce(data->>'$.superseded', 'false') <> 'true'
    group by 1
) c
where orch_tasks.task = c.task
"""

LATE = """
update orch_tasks set late_results = orch_tasks.late_results + c.late
from (
    select data->>'$.task' task, count(*) late from facts
    where type = 'TaskFinished' and data->>'$.superseded' = 'true' group by 1
) c
where orch_tasks.task = c.task
"""

DENIED = """
insert into orch_denials
select data->>'$.kind', data->>'$.node', data->>'$.lane', arg_max(data->>'$.reason', sequence),
    arg_max((data->>'$.actual')::double, sequence), arg_max((data->>'$.limit')::double, sequence),
    arg_max("at", sequence), arg_max(data->'$.terms', sequence), max(sequence)
from facts where type = 'TaskDenied' group by 1, 2, 3
on conflict (kind, node, lane) do update set reason = excluded.reason, actual = excluded.actual, lim = excluded.lim,
    "at" = excluded."at", terms = excluded.terms, last_sequence = excluded.last_sequence
"""

# a placement of the kind for the lane lifts what was denied before it
LIFTED = """
delete from orch_denials using (
    select distinct on (d.kind, d.node, d.lane) d.kind, d.node, d.lane
    from facts f join orch_tasks t on t.task = f.data->>'$.task' join orch_denials d on d.kind = t.kind
        and (d.lane = t.lane or d.lane = '') and (d.node = f.data->>'$.node' or d.node = '')
        and d.last_sequence < f.sequence
    where f.type = 'TaskAssigned'
) c
where orch_denials.kind = c.kind and orch_denials.node = c.node and orch_denials.lane = c.lane
"""

SHARES = """
insert into orch_shares
select s.value->>'$.lane', (s.value->>'$.share')::double, (s.value->>'$.score')::double, s.value->'$.terms', f."at",
    (f.data->>'$.read_to')::bigint
from (select * from facts where type = 'LaneSharesPlanned' order by sequence desc limit 1) f,
    json_each(f.data, '$.shares') s
on conflict (lane) do update set share = excluded.share, score = excluded.score, terms = excluded.terms,
    "at" = excluded."at", read_to = excluded.read_to
"""

UNPLANNED = """
delete from orch_shares where lane not in (
    select s.value->>'$.lane'
    from (select * from facts where type = 'LaneSharesPlanned' order by sequence desc limit 1) f,
        json_each(f.data, '$.shares') s
)
"""

TASKS = ReadModel(
    "selfplay-orch",
    2,
    TABLES,
    [
        on(TaskRequested, sql=REQUESTED),
        on(TaskAssigned, TaskStarted, TaskFinished, TaskFailed, TaskOrphaned, TaskCancelled, TaskAbandoned, sql=STATES),
        on(TaskFinished, sql=LATE),
        on(TaskDenied, sql=DENIED),
        on(TaskAssigned, sql=LIFTED),
        on(LaneSharesPlanned, sql=SHARES),
        on(LaneSharesPlanned, sql=UNPLANNED),
    ],
)
