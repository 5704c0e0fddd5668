"""`slots_pool`: one row a lane."""

from sparring.contracts.training_slots import (
    ClaimQueued,
    ClaimWithdrawn,
    SlotClaimed,
    SlotExpired,
    SlotReleased,
    SlotRenewed,
)
from sparring.read_model import ReadModel, on

TABLES = """
create table if not exists slots_pool (
    lane varchar primary key, state varchar, holder varchar, token bigint, until timestamptz, since timestamptz,
    held_by json, last_sequence bigint
);
"""

# a lane's row is what its last claim, queueing, release or expiry says; withdrawals of a lane that holds change nothing
CHANGES = """
insert into slots_pool
select lane,
    case kind when 'SlotClaimed' then 'held' when 'ClaimQueued' then 'queued' else 'free' end,
    case when kind in ('SlotClaimed', 'ClaimQueued') then holder end,
    case when kind = 'SlotClaimed' then sequence end,
    case when kind = 'SlotClaimed' then until::timestamptz end,
    moment, held_by, sequence
from (
    select data->>'$.lane' lane, arg_max_null(type, sequence) kind, arg_max_null(data->>'$.holder', sequence) holder,
        arg_max_null(data->>'$.until', sequence) until, arg_max_null("at", sequence) moment,
        arg_max_null(data->'$.held_by', sequence) held_by, max(sequence) sequence
    from facts where type in ('SlotClaimed', 'ClaimQueued', 'SlotReleased', 'SlotExpired', 'ClaimWithdrawn')
    group by 1
)
on conflict (lane) do update set state = excluded.state, holder = excluded.holder, token = excluded.token,
    until = excluded.until, since = excluded.since, held_by = excluded.held_by, last_sequence = excluded.last_sequence
"""

RENEWALS = """
update slots_pool set until = r.until
from (
    select data->>'$.lane' lane, (data->>'$.token')::bigint token, max((data->>'$.until')::timestamptz) until
    from facts where type = 'SlotRenewed' group by all
) r
where slots_pool.lane = r.lane and slots_pool.token = r.token
"""

SLOTS = ReadModel(
    "slots",
    1,
    TABLES,
    [
        on(SlotClaimed, ClaimQueued, SlotReleased, SlotExpired, ClaimWithdrawn, sql=CHANGES),
        on(SlotRenewed, sql=RENEWALS),
    ],
)
