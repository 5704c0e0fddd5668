"""`pipeline_lanes` and `pipeline_iterations`."""

from sparring.contracts.pipeline import (
    CollectionFinished,
    EvaluationStarted,
    ExportFinished,
    ExportStarted,
    IterationClosed,
    IterationOpened,
    LaneEdited,
    LanePaused,
    LaneRegistered,
    LaneResumed,
    QualityRefused,
    StageExtended,
    StageRetried,
    TrainingAwaitsSlot,
    TrainingFinished,
    TrainingInterrupted,
    TrainingStarted,
)
from sparring.read_model import ReadModel, on

TABLES = """
create table if not exists pipeline_lanes (
    lane varchar primary key, spec json, paused boolean, registered_at timestamptz,
    paused_by varchar, pause_reason varchar, paused_at timestamptz
);
create table if not exists pipeline_iterations (
    iteration varchar primary key, lane varchar, number bigint, stage varchar, since timestamptz, awaits varchar,
    owner varchar, deadline_at timestamptz, games bigint, positions bigint, model varchar, outcome varchar,
    reason varchar, opened_at timestamptz, closed_at timestamptz, attempt bigint, last_sequence bigint, shards json
);
"""

LANES = """
insert into pipeline_lanes (lane, spec, paused, registered_at)
select data->>'$.lane', arg_max(data->'$.spec', sequence), false, min("at")
from facts where type in ('LaneRegistered', 'LaneEdited') group by 1
on conflict (lane) do update set spec = excluded.spec
"""

PAUSES = """
update pipeline_lanes set paused = p.paused, paused_by = p.paused_by, pause_reason = p.reason, paused_at = p.moment
from (
    select data->>'$.lane' lane, arg_max(type = 'LanePaused', sequence) paused,
        arg_max_null(if(type = 'LanePaused', data->>'$.by', null), sequence) paused_by,
        arg_max_null(data->>'$.reason', sequence) reason,
        arg_max_null(if(type = 'LanePaused', "at", null), sequence) moment
    from facts where type in ('LanePaused', 'LaneResumed') group by 1
) p
where pipeline_lanes.lane = p.lane
"""

# what a fact of each type leaves the iteration waiting for, and of whom
STEPS = """
create table if not exists pipeline_steps (type varchar primary key, stage varchar, awaits varchar, owner varchar);
insert or ignore into pipeline_steps values
    ('IterationOpened', 'collecting', 'games to be played and admitted', 'selfplay-orch'),
    ('QualityRefused', 'collecting', 'more games: the data was not good enough', 'selfplay-orch'),
    ('CollectionFinished', 'exporting', 'the data set to be sealed', 'sync'),
    ('ExportStarted', 'exporting', 'the export task', 'selfplay-orch'),
    ('ExportFinished', 'training', 'a training slot', 'training-slots'),
    ('TrainingAwaitsSlot', 'training', 'a training slot', 'training-slots'),
    ('TrainingStarted', 'training', 'the training task', 'selfplay-orch'),
    ('TrainingInterrupted', 'training', 'a training slot', 'training-slots'),
    ('TrainingFinished', 'evaluating', 'the model to be registered', 'lifecycle'),
    ('EvaluationStarted', 'evaluating', 'the gate''s verdict', 'lifecycle'),
    ('IterationClosed', 'closed', null, null);
"""

OPENED = """
insert or ignore into pipeline_iterations (iteration, lane, number, opened_at, last_sequence)
select data->>'$.iteration', data->>'$.lane', (data->>'$.number')::bigint, "at", 0 from facts where type = 'IterationOpened'
"""

MOVED = """
update pipeline_iterations set stage = m.stage, awaits = m.awaits, owner = m.owner, since = m.moment,
    last_sequence = m.sequence
from (
    select data->>'$.iteration' iteration, arg_max_null(s.stage, sequence) stage, arg_max_null(s.awaits, sequence) awaits,
        arg_max_null(s.owner, sequence) owner, arg_max_null("at", sequence) moment, max(sequence) sequence
    from facts f join pipeline_steps s on s.type = f.type group by 1
) m
where pipeline_iterations.iteration = m.iteration
"""

DEADLINES = """
update pipeline_iterations set deadline_at = d.deadline_at
from (
    select data->>'$.iteration' iteration, arg_max((data->>'$.deadline_at')::timestamptz, sequence) deadline_at
    from facts where entity = 'iteration' and owner = 'pipeline' and data->>'$.deadline_at' is not null group by 1
) d
where pipeline_iterations.iteration = d.iteration
"""

COLLECTED = """
update pipeline_iterations set games = c.games, positions = c.positions
from (
    select data->>'$.iteration' iteration, arg_max((data->>'$.new_games')::bigint, sequence) games,
        arg_max((data->>'$.new_positions')::bigint, sequence) positions
    from facts where type = 'CollectionFinished' group by 1
) c
where pipeline_iterations.iteration = c.iteration
"""

EXPORTED = """
update pipeline_iterations set shards = e.shards
from (
    select data->>'$.iteration' iteration, arg_max(data->'$.shards', sequence) shards
    from facts where type = 'ExportFinished' group by 1
) e
where pipeline_iterations.iteration = e.iteration
"""

TRAINED = """
update pipeline_iterations set model = data->>'$.model' from facts
where type = 'TrainingFinished' and pipeline_iterations.iteration = data->>'$.iteration'
"""

RETRIED = """
update pipeline_iterations set attempt = r.attempt, reason = r.reason
from (
    select data->>'$.iteration' iteration, arg_max((data->>'$.attempt')::bigint, sequence) attempt,
        arg_max(data->>'$.reason', sequence) reason
    from facts where type in ('StageRetried', 'StageExtended', 'TrainingInterrupted') group by 1
) r
where pipeline_iterations.iteration = r.iteration
"""

CLOSED = """
update pipeline_iterations set outcome = data->>'$.outcome', reason = data->>'$.reason', closed_at = "at",
    deadline_at = null
from facts where type = 'IterationClosed' and pipeline_iterations.iteration = data->>'$.iteration'
"""

MOVES = (
    IterationOpened, QualityRefused, CollectionFinished, ExportStarted, ExportFinished, TrainingAwaitsSlot,
    TrainingStarted, TrainingInterrupted, TrainingFinished, EvaluationStarted, IterationClosed,
)  # fmt: skip

LOOP = ReadModel(
    "pipeline",
    4,
    TABLES + STEPS,
    [
        on(LaneRegistered, LaneEdited, sql=LANES),
        on(LanePaused, LaneResumed, sql=PAUSES),
        on(IterationOpened, sql=OPENED),
        on(*MOVES, sql=MOVED),
        on(*MOVES, StageRetried, StageExtended, sql=DEADLINES),
        on(CollectionFinished, sql=COLLECTED),
        on(ExportFinished, sql=EXPORTED),
        on(TrainingFinished, sql=TRAINED),
        on(StageRetried, StageExtended, TrainingInterrupted, sql=RETRIED),
        on(IterationClosed, sql=CLOSED),
    ],
)
