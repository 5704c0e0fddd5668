"""`health_breakers`, `health_recoveries`, `health_thresholds`: what health does by itself, and what moved."""

from sparring.contracts.health import (
    BreakerClosed,
    BreakerHalfOpened,
    BreakerOpened,
    Escalated,
    RecoveryAttempted,
    RecoveryFailed,
    RecoverySucceeded,
    ThresholdMoved,
)
from sparring.read_model import ReadModel, on

TABLES = """
create table if not exists health_breakers (
    breaker varchar primary key, scope varchar, node varchar, lane varchar, kind varchar, state varchar, times bigint,
    until timestamptz, reason varchar, since timestamptz
);
create table if not exists health_recoveries (
    recovery varchar primary key, node varchar, task varchar, state varchar, action varchar, attempts bigint,
    reason varchar, until timestamptz, since timestamptz
);
create table if not exists health_thresholds (
    threshold varchar primary key, value double, before double, least double, most double, terms json, "at" timestamptz
);
"""

BREAKERS = """
insert into health_breakers
select data->>'$.breaker', arg_max(data->>'$.scope', sequence), arg_max(data->>'$.node', sequence),
    arg_max(data->>'$.lane', sequence), arg_max(data->>'$.kind', sequence),
    arg_max(case type when 'BreakerOpened' then 'open' when 'BreakerHalfOpened' then 'half-open' else 'closed' end, sequence),
    arg_max((data->>'$.times')::bigint, sequence), arg_max_null((data->>'$.until')::timestamptz, sequence),
    coalesce(arg_max(data->>'$.reason', sequence), ''), arg_max("at", sequence)
from facts where type in ('BreakerOpened', 'BreakerHalfOpened', 'BreakerClosed') group by 1
on conflict (breaker) do update set state = excluded.state, times = excluded.times, until = excluded.until,
    reason = case when excluded.reason = '' then health_breakers.reason else excluded.reason end, since = excluded.since
"""

RECOVERIES = """
insert into health_recoveries
select data->>'$.recovery', arg_max(data->>'$.node', sequence), arg_max(data->>'$.task', sequence),
    arg_max(case type when 'RecoveryAttempted' then 'trying' when 'RecoverySucceeded' then 'succeeded'
        when 'RecoveryFailed' then 'failed' else 'escalated' end, sequence),
    coalesce(arg_max(data->>'$.action', sequence), ''),
    arg_max(coalesce(data->>'$.attempt', data->>'$.attempts')::bigint, sequence),
    arg_max(data->>'$.reason', sequence),
    arg_max_null(coalesce(data->>'$.until', data->>'$.quiet_until')::timestamptz, sequence), arg_max("at", sequence)
from facts where type in ('RecoveryAttempted', 'RecoverySucceeded', 'RecoveryFailed', 'Escalated') group by 1
on conflict (recovery) do update set state = excluded.state,
    action = case when excluded.action = '' then health_recoveries.action else excluded.action end,
    attempts = excluded.attempts, reason = excluded.reason, until = excluded.until, since = excluded.since
"""

THRESHOLDS = """
insert into health_thresholds
select data->>'$.threshold', arg_max((data->>'$.value')::double, sequence), arg_max((data->>'$.before')::double, sequence),
    arg_max((data->>'$.least')::double, sequence), arg_max((data->>'$.most')::double, sequence),
    arg_max(data->'$.terms', sequence), arg_max("at", sequence)
from facts where type = 'ThresholdMoved' group by 1
on conflict (threshold) do update set value = excluded.value, before = excluded.before, terms = excluded.terms,
    "at" = excluded."at"
"""

RECOVERY = ReadModel(
    "health_recovery",
    1,
    TABLES,
    [
        on(BreakerOpened, BreakerHalfOpened, BreakerClosed, sql=BREAKERS),
        on(RecoveryAttempted, RecoverySucceeded, RecoveryFailed, Escalated, sql=RECOVERIES),
        on(ThresholdMoved, sql=THRESHOLDS),
    ],
)
