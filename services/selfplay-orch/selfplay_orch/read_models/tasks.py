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
    ended_at timestamptz, "seconds" double, last_sequence bigint
);
create table if not exists orch_denials (
    kind varchar, node varchar, lane varchar, reason varchar, actual double, lim double, "at" timestamptz,
    primary key (kind, node, lane)
);
create table if not exists orch_shares (
    lane varchar primary key, share double, score double, terms json, "at" timestamptz
);
"""

REQUESTED = """
insert or ignore into orch_tasks (task, kind, lane, iteration, state, requested_at, last_sequence)
select data->>'$.task', data->>'$.spec.kind', data->>'$.spec.lane', data->>'$.spec.iteration', 'requested', "at", sequence
from facts where type = 'TaskRequested'
"""

STATES = """
update orch_tasks set state = c.state, last_sequence = c.sequence,
    node = coalesce(c.node, orch_tasks.node), attempt = coalesce(c.attempt, orch_tasks.attempt),
    reason = coalesce(c.reason, orch_tasks.reason),
    assigned_at = coalesce(c.assigned_at, orch_tasks.assigned_at),
    started_at = coalesce(c.started_at, orch_tasks.started_at),
    ended_at = coalesce(c.ended_at, orch_tasks.ended_at), "seconds" = coalesce(c."seconds", orch_tasks."seconds")
from (
    select data->>'$.task' task, max(sequence) sequence,
        arg_max(case type when 'TaskAssigned' then 'assigned' when 'TaskStarted' then 'started'
            when 'TaskFinished' then 'finished' when 'TaskFailed' then 'requested' when 'TaskOrphaned' then 'requested'
            when 'TaskCancelled' then 'cancelled' else 'abandoned' end, sequence) state,
        arg_max(data->>'$.node', sequence) node, arg_max((data->>'$.attempt')::bigint, sequence) attempt,
        arg_max(data->>'$.reason', sequence) reason,
        max("at") filter (type = 'TaskAssigned') assigned_at, max("at") filter (type = 'TaskStarted') started_at,
        max("at") filter (type in ('TaskFinished', 'TaskCancelled', 'TaskAbandoned')) ended_at,
        arg_max((data->>'$.seconds')::double, sequence) filter (type = 'TaskFinished') as "seconds"
    from facts
    where type in ('TaskAssigned', 'TaskStarted', 'TaskFinished', 'TaskFailed', 'TaskOrphaned', 'TaskCancelled',
        'TaskAbandoned') and coalesce(data->>'$.superseded', 'false') <> 'true'
    group by 1
) c
where orch_tasks.task = c.task
"""

DENIED = """
insert into orch_denials
select data->>'$.kind', data->>'$.node', data->>'$.lane', arg_max(data->>'$.reason', sequence),
    arg_max((data->>'$.actual')::double, sequence), arg_max((data->>'$.limit')::double, sequence), max("at")
from facts where type = 'TaskDenied' group by 1, 2, 3
on conflict (kind, node, lane) do update set reason = excluded.reason, actual = excluded.actual, lim = excluded.lim,
    "at" = excluded."at"
"""

SHARES = """
insert into orch_shares
select s.value->>'$.lane', (s.value->>'$.share')::double, (s.value->>'$.score')::double, s.value->'$.terms', f."at"
from (select * from facts where type = 'LaneSharesPlanned' order by sequence desc limit 1) f,
    json_each(f.data, '$.shares') s
on conflict (lane) do update set share = excluded.share, score = excluded.score, terms = excluded.terms,
    "at" = excluded."at"
"""

TASKS = ReadModel(
    "selfplay-orch",
    1,
    TABLES,
    [
        on(TaskRequested, sql=REQUESTED),
        on(TaskAssigned, TaskStarted, TaskFinished, TaskFailed, TaskOrphaned, TaskCancelled, TaskAbandoned, sql=STATES),
        on(TaskDenied, sql=DENIED),
        on(LaneSharesPlanned, sql=SHARES),
    ],
)
