"""`slots_pool`: one row a lane that ever trained; `slots_queue`: who waits; `slots_holds`: who is held back, and why."""

from sparring.contracts.training_slots import (
    ClaimQueued,
    ClaimWithdrawn,
    HoldBackLifted,
    LaneHeldBack,
    PreemptionAsked,
    SlotClaimed,
    SlotExpired,
    SlotPreempted,
    SlotReleased,
    SlotRenewed,
)
from sparring.read_model import ReadModel, on

TABLES = """
create table if not exists slots_pool (
    lane varchar primary key, state varchar, holder varchar, token bigint, until timestamptz, since timestamptz,
    asked_by varchar, asked_reason varchar, give_way_by timestamptz, ended varchar, slots bigint, last_sequence bigint
);
create table if not exists slots_queue (
    holder varchar primary key, lane varchar, priority bigint, since timestamptz, expires_at timestamptz, slots bigint,
    last_sequence bigint
);
create table if not exists slots_holds (
    lane varchar, cause varchar, severity varchar, factor double, reason varchar, by_whom varchar, since timestamptz,
    until timestamptz, lifted boolean, last_sequence bigint, primary key (lane, cause)
);
"""

# a lane's row is what its last claim or ending says; a new claim forgets what its predecessor was asked
CHANGES = """
insert into slots_pool
select lane, case kind when 'SlotClaimed' then 'held' else 'free' end,
    case when kind = 'SlotClaimed' then holder end, case when kind = 'SlotClaimed' then sequence end,
    case when kind = 'SlotClaimed' then until::timestamptz end, moment, null, null, null,
    case kind when 'SlotReleased' then 'released' when 'SlotPreempted' then 'preempted' when 'SlotExpired' then reason end,
    slots, sequence
from (
    select data->>'$.lane' lane, arg_max(type, sequence) kind, arg_max_null(data->>'$.holder', sequence) holder,
        arg_max_null(data->>'$.until', sequence) until, arg_max("at", sequence) moment,
        arg_max_null(data->>'$.reason', sequence) reason,
        arg_max((data->>'$.limit')::bigint, sequence) filter (type = 'SlotClaimed') slots, max(sequence) sequence
    from facts where type in ('SlotClaimed', 'SlotReleased', 'SlotExpired', 'SlotPreempted')
    group by 1
)
on conflict (lane) do update set state = excluded.state, holder = excluded.holder, token = excluded.token,
    until = excluded.until, since = excluded.since, asked_by = null, asked_reason = null, give_way_by = null,
    ended = excluded.ended, slots = coalesce(excluded.slots, slots_pool.slots), last_sequence = excluded.last_sequence
"""

RENEWALS = """
update slots_pool set until = r.until
from (
    select data->>'$.lane' lane, (data->>'$.token')::bigint token, max((data->>'$.until')::timestamptz) until
    from facts where type = 'SlotRenewed' group by all
) r
where slots_pool.lane = r.lane and slots_pool.token = r.token
"""

ASKED = """
update slots_pool set asked_by = r.by_whom, asked_reason = r.reason, give_way_by = r.until
from (
    select data->>'$.lane' lane, (data->>'$.token')::bigint token, data->>'$.by' by_whom, data->>'$.reason' reason,
        (data->>'$.until')::timestamptz until
    from facts where type = 'PreemptionAsked'
) r
where slots_pool.lane = r.lane and slots_pool.token = r.token
"""

QUEUED = """
insert into slots_queue
select data->>'$.holder', arg_max(data->>'$.lane', sequence), arg_max((data->>'$.priority')::bigint, sequence),
    arg_max("at", sequence), arg_max((data->>'$.expires_at')::timestamptz, sequence),
    arg_max((data->>'$.limit')::bigint, sequence), max(sequence)
from facts where type = 'ClaimQueued' group by 1
on conflict (holder) do update set lane = excluded.lane, priority = excluded.priority, since = excluded.since,
    expires_at = excluded.expires_at, slots = excluded.slots, last_sequence = excluded.last_sequence
"""

SERVED = """
delete from slots_queue using (
    select data->>'$.holder' holder, max(sequence) sequence
    from facts where type in ('SlotClaimed', 'ClaimWithdrawn') group by 1
) r
where slots_queue.holder = r.holder and slots_queue.last_sequence < r.sequence
"""

HOLDS = """
insert into slots_holds
select lane, cause, severity, factor, reason, by_whom, since, until, false, sequence
from (
    select data->>'$.lane' lane, coalesce(data->>'$.cause', 'operator') cause,
        arg_max(coalesce(data->>'$.severity', 'severe'), sequence) severity,
        arg_max(coalesce((data->>'$.factor')::double, 0.0), sequence) factor,
        arg_max(data->>'$.reason', sequence) reason, arg_max(coalesce(data->>'$.by', ''), sequence) by_whom,
        arg_max("at", sequence) since, arg_max((data->>'$.until')::timestamptz, sequence) until, max(sequence) sequence
    from facts where type = 'LaneHeldBack' group by 1, 2
)
on conflict (lane, cause) do update set severity = excluded.severity, factor = excluded.factor,
    reason = excluded.reason, by_whom = excluded.by_whom, since = excluded.since, until = excluded.until,
    lifted = false, last_sequence = excluded.last_sequence
"""

LIFTED = """
update slots_holds set lifted = true, last_sequence = r.sequence
from (
    select data->>'$.lane' lane, data->>'$.cause' cause, max(sequence) sequence
    from facts where type = 'HoldBackLifted' group by 1, 2
) r
where slots_holds.lane = r.lane and slots_holds.cause = r.cause and slots_holds.last_sequence < r.sequence
"""

SLOTS = ReadModel(
    "slots",
    2,
    TABLES,
    [
        on(SlotClaimed, SlotReleased, SlotExpired, SlotPreempted, sql=CHANGES),
        on(SlotRenewed, sql=RENEWALS),
        on(PreemptionAsked, sql=ASKED),
        on(ClaimQueued, sql=QUEUED),
        on(SlotClaimed, ClaimWithdrawn, sql=SERVED),
        on(LaneHeldBack, sql=HOLDS),
        on(HoldBackLifted, sql=LIFTED),
    ],
)
