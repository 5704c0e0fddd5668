"""`health_nodes`, `health_queues`, `health_cluster`, `health_score`, `health_alarms`, `health_letters`."""

from sparring.contracts.health import (
    AlarmCleared,
    AlarmRaised,
    BackpressureChanged,
    CapacityRetargeted,
    ClusterSwitched,
    DeadLetterAbandoned,
    DeadLetterDiscarded,
    DeadLetterFailedAgain,
    DeadLetterRecorded,
    DeadLetterRecovered,
    DeadLetterRedriven,
    HealthScored,
    NodeDrained,
    NodeDraining,
    NodeForgotten,
    NodeJoined,
    NodeLost,
    NodePreemptionNoticed,
    NodeRecovered,
    NodeRetired,
    NodeSuspected,
)
from sparring.read_model import ReadModel, on

TABLES = """
create table if not exists health_nodes (
    node varchar primary key, boot varchar, state varchar, since timestamptz, ephemeral boolean, seats bigint,
    cores double, memory_bytes bigint, gpus json, tags json, machine varchar, joined_at timestamptz, misfit varchar
);
create table if not exists health_queues (
    queue varchar primary key, lane varchar, name varchar, level varchar, factor double, depth double, soft double,
    hard double, target double, "at" timestamptz
);
create table if not exists health_cluster (
    cluster varchar primary key, state varchar, revision bigint, by_whom varchar, reason varchar, automatic boolean,
    override_until timestamptz, "at" timestamptz
);
create table if not exists health_score (
    score varchar primary key, value double, grade varchar, terms json, "at" timestamptz
);
create table if not exists health_alarms (
    alarm varchar primary key, about varchar, severity varchar, text varchar, remedy varchar, whose varchar,
    state varchar, times bigint, since timestamptz, raised_at timestamptz, cleared_at timestamptz
);
create table if not exists health_letters (
    letter varchar primary key, consumer varchar, stream varchar, stream_sequence bigint, subject varchar,
    message_type varchar, state varchar, transient boolean, reason varchar, exception varchar, fingerprint varchar,
    deliveries bigint, redrives bigint, trace varchar, recorded_at timestamptz, due_at timestamptz
);
"""

JOINED = """
insert into health_nodes
select node, boot, state, moment, ephemeral, seats, cores, memory, gpus, tags, machine, moment, misfit from (
    select data->>'$.node' node, arg_max(data->>'$.boot', sequence) boot,
        arg_max(case when (data->>'$.compatible')::boolean then 'healthy' else 'incompatible' end, sequence) state,
        max("at") moment, arg_max((data->>'$.ephemeral')::boolean, sequence) ephemeral,
        arg_max((data->>'$.seats')::bigint, sequence) seats, arg_max((data->>'$.cores')::double, sequence) cores,
        arg_max((data->>'$.memory_bytes')::bigint, sequence) memory, arg_max(data->'$.gpus', sequence) gpus,
        arg_max(data->'$.tags', sequence) tags, arg_max(data->>'$.machine', sequence) machine,
        arg_max(coalesce(data->>'$.misfit', ''), sequence) misfit
    from facts where type = 'NodeJoined' group by 1
)
on conflict (node) do update set boot = excluded.boot, ephemeral = excluded.ephemeral, seats = excluded.seats,
    cores = excluded.cores, memory_bytes = excluded.memory_bytes, gpus = excluded.gpus, tags = excluded.tags,
    machine = excluded.machine, joined_at = excluded.joined_at, misfit = excluded.misfit
"""

STATES = """
update health_nodes set state = c.state, since = c.moment
from (
    select data->>'$.node' node, arg_max("at", sequence) moment,
        arg_max(case type
            when 'NodeJoined' then case when (data->>'$.compatible')::boolean then 'healthy' else 'incompatible' end
            when 'NodeSuspected' then 'suspected' when 'NodeRecovered' then 'healthy' when 'NodeLost' then 'lost'
            when 'NodeDraining' then 'draining' when 'NodeDrained' then 'drained' when 'NodeRetired' then 'retired'
            when 'NodePreemptionNoticed' then 'preempted' else 'forgotten' end, sequence) state
    from facts
    where type in ('NodeJoined', 'NodeSuspected', 'NodeRecovered', 'NodeLost', 'NodeDraining', 'NodeDrained',
        'NodePreemptionNoticed', 'NodeRetired', 'NodeForgotten')
    group by 1
) c
where health_nodes.node = c.node
"""

SEATS = """
update health_nodes set seats = c.seats
from (
    select data->>'$.node' node, arg_max((data->>'$.seats')::bigint, sequence) seats
    from facts where type in ('NodeJoined', 'CapacityRetargeted') group by 1
) c
where health_nodes.node = c.node
"""

QUEUES = """
insert into health_queues
select data->>'$.queue', arg_max(data->>'$.lane', sequence), arg_max(data->>'$.name', sequence),
    arg_max(data->>'$.level', sequence), arg_max((data->>'$.factor')::double, sequence),
    arg_max_null((data->>'$.depth')::double, sequence), arg_max((data->>'$.soft')::double, sequence),
    arg_max((data->>'$.hard')::double, sequence), arg_max_null((data->>'$.target')::double, sequence),
    arg_max("at", sequence)
from facts where type = 'BackpressureChanged' group by 1
on conflict (queue) do update set target = excluded.target, level = excluded.level, factor = excluded.factor, depth = excluded.depth,
    soft = excluded.soft, hard = excluded.hard, "at" = excluded."at"
"""

CLUSTER = """
insert into health_cluster
select data->>'$.cluster', arg_max(data->>'$.state', sequence), arg_max((data->>'$.revision')::bigint, sequence),
    arg_max(data->>'$.by', sequence), arg_max(data->>'$.reason', sequence),
    arg_max(coalesce((data->>'$.automatic')::boolean, false), sequence),
    arg_max_null((data->>'$.override_until')::timestamptz, sequence), arg_max("at", sequence)
from facts where type = 'ClusterSwitched' group by 1
on conflict (cluster) do update set automatic = excluded.automatic, override_until = excluded.override_until, state = excluded.state, revision = excluded.revision, by_whom = excluded.by_whom,
    reason = excluded.reason, "at" = excluded."at"
"""

SCORE = """
insert into health_score
select data->>'$.score', arg_max((data->>'$.value')::double, sequence), arg_max(data->>'$.grade', sequence),
    arg_max(data->'$.terms', sequence), arg_max("at", sequence)
from facts where type = 'HealthScored' group by 1
on conflict (score) do update set value = excluded.value, grade = excluded.grade, terms = excluded.terms,
    "at" = excluded."at"
"""

RAISED = """
insert into health_alarms
select data->>'$.alarm', arg_max(data->>'$.about', sequence), arg_max(data->>'$.severity', sequence),
    arg_max(data->>'$.text', sequence), arg_max(data->>'$.remedy', sequence),
    arg_max(coalesce(nullif(data->>'$.whose', ''), 'a person'), sequence), 'raised',
    arg_max((data->>'$.times')::bigint, sequence),
    arg_max(coalesce((data->>'$.since')::timestamptz, "at"), sequence), arg_max("at", sequence), null
from facts where type = 'AlarmRaised' group by 1
on conflict (alarm) do update set severity = excluded.severity, text = excluded.text, remedy = excluded.remedy,
    whose = excluded.whose, times = excluded.times, since = excluded.since, raised_at = excluded.raised_at
"""

ALARM_STATES = """
update health_alarms set state = c.state, cleared_at = c.cleared_at
from (
    select data->>'$.alarm' alarm, arg_max(case type when 'AlarmRaised' then 'raised' else 'cleared' end, sequence) state,
        arg_max_null(case when type = 'AlarmCleared' then "at" end, sequence) cleared_at
    from facts where type in ('AlarmRaised', 'AlarmCleared') group by 1
) c
where health_alarms.alarm = c.alarm
"""

LETTERS = """
insert or ignore into health_letters
select data->>'$.letter', data->>'$.consumer', data->>'$.stream', (data->>'$.stream_sequence')::bigint,
    data->>'$.subject', data->>'$.message_type', 'pending', (data->>'$.transient')::boolean, data->>'$.reason',
    data->>'$.exception', data->>'$.fingerprint', (data->>'$.deliveries')::bigint, 0, data->>'$.trace', "at",
    (data->>'$.due_at')::timestamptz
from facts where type = 'DeadLetterRecorded'
"""

LETTER_STATES = """
update health_letters set state = c.state, due_at = c.due_at, redrives = greatest(health_letters.redrives, c.redrives)
from (
    select data->>'$.letter' letter,
        arg_max(case type when 'DeadLetterRecorded' then 'pending' when 'DeadLetterRedriven' then 'redriven'
            when 'DeadLetterRecovered' then 'recovered' when 'DeadLetterFailedAgain' then 'pending'
            when 'DeadLetterAbandoned' then 'abandoned' else 'discarded' end, sequence) state,
        last((data->>'$.due_at')::timestamptz order by sequence) due_at,
        coalesce(max((data->>'$.attempt')::bigint) filter (type = 'DeadLetterRedriven'), 0) redrives
    from facts
    where type in ('DeadLetterRecorded', 'DeadLetterRedriven', 'DeadLetterRecovered', 'DeadLetterFailedAgain',
        'DeadLetterAbandoned', 'DeadLetterDiscarded')
    group by 1
) c
where health_letters.letter = c.letter
"""

NODE_FACTS = (
    NodeJoined, NodeSuspected, NodeRecovered, NodeLost, NodeDraining, NodeDrained, NodePreemptionNoticed, NodeRetired,
    NodeForgotten,
)  # fmt: skip
LETTER_FACTS = (
    DeadLetterRecorded, DeadLetterRedriven, DeadLetterRecovered, DeadLetterFailedAgain, DeadLetterAbandoned,
    DeadLetterDiscarded,
)  # fmt: skip

HEALTH = ReadModel(
    "health",
    3,
    TABLES,
    [
        on(NodeJoined, sql=JOINED),
        on(*NODE_FACTS, sql=STATES),
        on(NodeJoined, CapacityRetargeted, sql=SEATS),
        on(BackpressureChanged, sql=QUEUES),
        on(ClusterSwitched, sql=CLUSTER),
        on(HealthScored, sql=SCORE),
        on(AlarmRaised, sql=RAISED),
        on(AlarmRaised, AlarmCleared, sql=ALARM_STATES),
        on(DeadLetterRecorded, sql=LETTERS),
        on(*LETTER_FACTS, sql=LETTER_STATES),
    ],
)
