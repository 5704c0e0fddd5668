"""`lifecycle_models`, `lifecycle_gates`, `lifecycle_matches`, `lifecycle_curriculum`."""

from sparring.contracts.lifecycle import (
    CurriculumRebalanced,
    GateDecided,
    GateOpened,
    MatchRecorded,
    MeasurementFinished,
    MeasurementOpened,
    ModelPromoted,
    ModelRegistered,
    ModelRejected,
    ModelRolledBack,
)
from sparring.read_model import ReadModel, on

TABLES = """
create table if not exists lifecycle_models (
    lane varchar, model varchar, number bigint, state varchar, iteration varchar, artifact json, parent varchar,
    dataset varchar, evidence json, registered_at timestamptz, changed_at timestamptz, reason varchar,
    primary key (lane, model)
);
create table if not exists lifecycle_gates (
    gate varchar primary key, lane varchar, purpose varchar, candidate varchar, baseline varchar, state varchar,
    verdict varchar, reason varchar, counts json, statistics json, pairs bigint, opened_at timestamptz,
    decided_at timestamptz, most_pairs bigint, rules json
);
create table if not exists lifecycle_matches (
    gate varchar, task varchar, lane varchar, purpose varchar, candidate varchar, baseline varchar, counts json,
    games bigint, final boolean, primary key (gate, task)
);
create table if not exists lifecycle_curriculum (lane varchar primary key, weight double, terms json, "at" timestamptz);
"""

REGISTERED = """
insert or ignore into lifecycle_models
select data->>'$.lane', data->>'$.model', (data->>'$.number')::bigint, 'evaluating', data->>'$.lineage.iteration',
    data->'$.artifact', data->>'$.lineage.parent', data->>'$.lineage.dataset', data->'$.evidence', "at", "at",
    null
from facts where type = 'ModelRegistered'
"""

# a promotion supersedes the model before, a rollback puts an earlier one back: each is two changes of state
STATES = """
update lifecycle_models set state = c.state, changed_at = c.moment, reason = c.reason
from (
    select lane, model, arg_max(state, sequence) state, arg_max(moment, sequence) moment, arg_max(reason, sequence) reason
    from (
        select data->>'$.lane' lane, data->>'$.model' model, sequence, "at" moment,
            case type when 'ModelPromoted' then 'production' when 'ModelRejected' then 'rejected' else 'rolled_back' end
                state,
            case type
                when 'ModelPromoted' then coalesce('by ' || nullif(data->>'$.by', ''), 'gate ' || (data->>'$.gate'))
                when 'ModelRejected' then data->>'$.reason'
                else concat('by ', data->>'$.by', ': ', data->>'$.reason') end reason
        from facts where type in ('ModelPromoted', 'ModelRejected', 'ModelRolledBack')
        union all
        select data->>'$.lane', data->>'$.candidate', sequence, "at", 'passed', 'a person promotes or rejects it' from facts
        where type = 'GateDecided' and (data->>'$.by_hand')::boolean
        union all
        select data->>'$.lane', data->>'$.previous', sequence, "at", 'superseded', concat('by ', (data->>'$.model')[:12])
        from facts where type = 'ModelPromoted'
        union all
        select data->>'$.lane', data->>'$.to', sequence, "at", 'production',
            concat((data->>'$.model')[:12], ' was rolled back')
        from facts where type = 'ModelRolledBack'
    ) group by all
) c
where lifecycle_models.lane = c.lane and lifecycle_models.model = c.model
"""

OPENED = """
insert or ignore into lifecycle_gates
select data->>'$.gate', data->>'$.lane', coalesce(data->>'$.purpose', 'gate'), data->>'$.candidate',
    data->>'$.baseline', 'open', null, null, null, null, 0, "at", null,
    coalesce(data->>'$.rules.max_pairs', data->>'$.pairs')::bigint, nullif(data->'$.rules', 'null'::json)
from facts where type in ('GateOpened', 'MeasurementOpened')
"""

MATCHES = """
insert into lifecycle_matches
select data->>'$.gate', data->>'$.task', any_value(data->>'$.lane'), any_value(data->>'$.purpose'),
    any_value(data->>'$.candidate'), any_value(data->>'$.baseline'), arg_max(data->'$.counts', sequence),
    arg_max((data->>'$.games')::bigint, sequence), arg_max((data->>'$.final')::boolean, sequence)
from facts where type = 'MatchRecorded' group by 1, 2
on conflict (gate, task) do update set counts = excluded.counts, games = excluded.games, final = excluded.final
"""

PAIRS = """
update lifecycle_gates set pairs = p.pairs
from (
    select gate, sum(case when json_array_length(counts) = 5 then games // 2 else games end)::bigint pairs
    from lifecycle_matches where gate in (select data->>'$.gate' from facts where type = 'MatchRecorded') group by 1
) p
where lifecycle_gates.gate = p.gate
"""

# a gate is decided once, however the log is cut into batches
DECIDED = """
update lifecycle_gates set state = 'decided', verdict = d.data->>'$.verdict',
    reason = concat_ws(': ', d.data->>'$.reason', nullif(d.data->>'$.ended_by', '')), counts = d.data->'$.counts',
    statistics = nullif(d.data->'$.statistics', 'null'::json), decided_at = d."at"
from (
    select data->>'$.gate' gate, data, "at" from facts where type in ('GateDecided', 'MeasurementFinished')
    qualify row_number() over (partition by data->>'$.gate' order by sequence) = 1
) d
where lifecycle_gates.gate = d.gate and state = 'open'
"""

WEIGHTS = """
insert into lifecycle_curriculum
select data->>'$.lane', arg_max((data->>'$.weight')::double, sequence), arg_max(data->'$.terms', sequence),
    arg_max("at", sequence)
from facts where type = 'CurriculumRebalanced' group by 1
on conflict (lane) do update set weight = excluded.weight, terms = excluded.terms, "at" = excluded."at"
"""

MODELS = ReadModel(
    "lifecycle",
    4,
    TABLES,
    [
        on(ModelRegistered, sql=REGISTERED),
        on(ModelPromoted, ModelRejected, ModelRolledBack, GateDecided, sql=STATES),
        on(GateOpened, MeasurementOpened, sql=OPENED),
        on(MatchRecorded, sql=MATCHES),
        on(MatchRecorded, sql=PAIRS),
        on(GateDecided, MeasurementFinished, sql=DECIDED),
        on(CurriculumRebalanced, sql=WEIGHTS),
    ],
)
