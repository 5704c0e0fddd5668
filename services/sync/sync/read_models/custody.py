"""`sync_batches`, `sync_datasets`, `sync_refusals`, and `sync_balance`: produced = admitted + held + moving + quarantined + lost."""

from sparring.contracts.sync import (
    BatchAdmitted,
    BatchLost,
    BatchQuarantined,
    BatchRetired,
    BatchStored,
    DatasetRefused,
    DatasetSealed,
    GamesRecorded,
    SyncHastened,
    TransferFailed,
    TransferGranted,
)
from sparring.read_model import ReadModel, on

TABLES = """
create table if not exists sync_batches (
    batch varchar primary key, lane varchar, task varchar, node varchar, state varchar, games bigint, positions bigint,
    bytes bigint, model varchar, sha256 varchar, url varchar, reason varchar, recorded_at timestamptz,
    changed_at timestamptz, asked boolean
);
create table if not exists sync_datasets (
    iteration varchar primary key, lane varchar, dataset varchar, games bigint, positions bigint, new_games bigint,
    new_positions bigint, batches json, sealed_at timestamptz, left_out bigint
);
create table if not exists sync_refusals (
    sequence bigint primary key, iteration varchar, lane varchar, reason varchar, refused_at timestamptz
);
create or replace view sync_balance as
select lane, sum(games)::bigint produced,
    (sum(games) filter (state in ('admitted', 'retired')))::bigint admitted,
    (coalesce(sum(games) filter (state = 'recorded'), 0))::bigint held,
    (coalesce(sum(games) filter (state in ('granted', 'stored')), 0))::bigint moving,
    (coalesce(sum(games) filter (state = 'quarantined'), 0))::bigint quarantined,
    (coalesce(sum(games) filter (state = 'lost'), 0))::bigint lost
from sync_batches group by lane;
"""

RECORDED = """
insert or ignore into sync_batches
select data->>'$.batch', data->>'$.lane', data->>'$.task', data->>'$.node', 'recorded', (data->>'$.games')::bigint,
    (data->>'$.positions')::bigint, (data->>'$.bytes')::bigint, data->>'$.model', data->>'$.sha256', null, null,
    "at", "at", false
from facts where type = 'GamesRecorded'
"""

ASKED = """
update sync_batches set asked = true from facts where type = 'SyncHastened' and sync_batches.batch = data->>'$.batch'
"""

STATES = """
update sync_batches set state = c.state, changed_at = c.moment, reason = coalesce(c.reason, sync_batches.reason),
    url = coalesce(c.url, sync_batches.url)
from (
    select data->>'$.batch' batch, arg_max("at", sequence) moment,
        arg_max(case type when 'TransferGranted' then 'granted' when 'TransferFailed' then 'recorded'
            when 'BatchStored' then 'stored' when 'BatchAdmitted' then 'admitted'
            when 'BatchQuarantined' then 'quarantined' when 'BatchLost' then 'lost' else 'retired' end, sequence) state,
        arg_max(coalesce(data->>'$.reason', data->>'$.proof'), sequence) reason,
        arg_max(data->>'$.url', sequence) url
    from facts
    where type in ('TransferGranted', 'TransferFailed', 'BatchStored', 'BatchAdmitted', 'BatchQuarantined', 'BatchLost',
        'BatchRetired') and entity = 'batch'
    group by 1
) c
where sync_batches.batch = c.batch
"""

SEALED = """
insert or replace into sync_datasets
select data->>'$.iteration', data->>'$.lane', data->>'$.dataset', (data->>'$.games')::bigint,
    (data->>'$.positions')::bigint, (data->>'$.new_games')::bigint, (data->>'$.new_positions')::bigint,
    data->'$.batches', "at", coalesce((data->>'$.left_out')::bigint, 0)
from facts where type = 'DatasetSealed'
qualify row_number() over (partition by data->>'$.iteration' order by sequence desc) = 1
"""

REFUSED = """
insert or ignore into sync_refusals
select sequence, data->>'$.iteration', data->>'$.lane', data->>'$.reason', "at" from facts where type = 'DatasetRefused'
"""

CUSTODY = ReadModel(
    "sync",
    4,
    TABLES,
    [
        on(GamesRecorded, sql=RECORDED),
        on(
            TransferGranted, TransferFailed, BatchStored, BatchAdmitted, BatchQuarantined, BatchLost, BatchRetired,
            sql=STATES,
        ),
        on(SyncHastened, sql=ASKED),
        on(DatasetSealed, sql=SEALED),
        on(DatasetRefused, sql=REFUSED),
    ],
)  # fmt: skip
