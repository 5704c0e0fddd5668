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
    PromotionAwaited,
    QualityRefused,
    StageExtended,
    StageRetried,
    StepOrdered,
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
    reason varchar, opened_at timestamptz, closed_at timestamptz, attempt bigint, last_sequence bigint, shards json,
    step varchar, min_games bigint, min_positions bigint, games_before bigint, positions_before bigint, refused json,
    ordered varchar[]
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

# what a fact of each type leaves the iteration waiting for, and of whom; a stage that is tried again begins with its first step
STEPS = """
create table if not exists pipeline_steps (
    type varchar, again varchar, stage varchar, step varchar, awaits varchar, owner varchar, primary key (type, again)
);
insert or ignore into pipeline_steps values
    ('IterationOpened', '', 'collecting', 'games', 'games to be played and admitted', 'selfplay-orch'),
    ('QualityRefused', '', 'collecting', 'games', 'more games: the data was not good enough', 'selfplay-orch'),
    ('StageRetried', 'collecting', 'collecting', 'games', 'games to be played and admitted', 'selfplay-orch'),
    ('CollectionFinished', '', 'exporting', 'seal', 'the data set to be sealed', 'sync'),
    ('StageRetried', 'exporting', 'exporting', 'seal', 'the data set to be sealed', 'sync'),
    ('ExportStarted', '', 'exporting', 'export', 'the export task', 'selfplay-orch'),
    ('ExportFinished', '', 'training', 'slot', 'a training slot', 'training-slots'),
    ('TrainingAwaitsSlot', '', 'training', 'slot', 'a training slot', 'training-slots'),
    ('StageRetried', 'training', 'training', 'slot', 'a training slot', 'training-slots'),
    ('TrainingStarted', '', 'training', 'train', 'the training task', 'selfplay-orch'),
    ('TrainingInterrupted', '', 'training', 'slot', 'a training slot', 'training-slots'),
    ('TrainingFinished', '', 'evaluating', 'register', 'the model to be registered', 'lifecycle'),
    ('StageRetried', 'evaluating', 'evaluating', 'register', 'the model to be registered', 'lifecycle'),
    ('EvaluationStarted', '', 'evaluating', 'gate', 'the gate''s verdict', 'lifecycle'),
    ('PromotionAwaited', '', 'deciding', 'promote', 'a person to promote or reject the model', 'lifecycle'),
    ('IterationClosed', '', 'closed', null, null, null);
"""

OPENED = """
insert or ignore into pipeline_iterations (
    iteration, lane, number, opened_at, last_sequence, min_games, min_positions, games_before, positions_before
)
select data->>'$.iteration', data->>'$.lane', (data->>'$.number')::bigint, "at", 0, (data->>'$.min_new_games')::bigint,
    (data->>'$.min_positions')::bigint, (data->>'$.games_before')::bigint, (data->>'$.positions_before')::bigint
from facts where type = 'IterationOpened'
"""

MOVED = """
update pipeline_iterations set stage = m.stage, step = m.step, awaits = m.awaits, owner = m.owner, since = m.moment,
    last_sequence = m.sequence
from (
    select data->>'$.iteration' iteration, arg_max_null(s.stage, sequence) stage, arg_max_null(s.step, sequence) step,
        arg_max_null(s.awaits, sequence) awaits, arg_max_null(s.owner, sequence) owner,
        arg_max_null("at", sequence) moment, max(sequence) sequence
    from facts f join pipeline_steps s on s.type = f.type and (s.again = '' or s.again = f.data->>'$.stage') group by 1
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

# a stage that is entered anew has no reason and is at its first attempt; a step that was ordered waits for no person any more
REASONS = """
update pipeline_iterations set reason = r.reason, attempt = coalesce(r.attempt, pipeline_iterations.attempt)
from (
    select data->>'$.iteration' iteration, arg_max_null(data->>'$.reason', sequence) reason,
        arg_max(case when type in ('StageRetried', 'TrainingInterrupted') then (data->>'$.attempt')::bigint
            when type in ('StageExtended', 'IterationClosed', 'StepOrdered') then null else 1 end, sequence) attempt
    from facts where type in ('StageRetried', 'StageExtended', 'TrainingInterrupted', 'IterationOpened', 'CollectionFinished',
        'ExportFinished', 'TrainingFinished', 'PromotionAwaited', 'IterationClosed', 'StepOrdered') group by 1
) r
where pipeline_iterations.iteration = r.iteration
"""

REFUSED = """
update pipeline_iterations set refused = r.terms
from (
    select data->>'$.iteration' iteration, arg_max(data->'$.terms', sequence) terms
    from facts where type = 'QualityRefused' group by 1
) r
where pipeline_iterations.iteration = r.iteration
"""

# a data set that is refused takes back what was let go by hand
ORDERED = """
update pipeline_iterations
set ordered = if(o.begin is null, list_concat(coalesce(pipeline_iterations.ordered, []), o.steps), o.steps)
from (
    with begins as (
        select data->>'$.iteration' iteration, max(sequence) filter (where type = 'QualityRefused') begin
        from facts where type in ('StepOrdered', 'QualityRefused') group by 1
    )
    select iteration, begin, coalesce(
        list(data->>'$.step' order by sequence) filter (where type = 'StepOrdered' and sequence > coalesce(begin, 0)), []
    ) steps
    from facts join begins on begins.iteration = data->>'$.iteration'
    where type in ('StepOrdered', 'QualityRefused') group by all
) o
where pipeline_iterations.iteration = o.iteration
"""

CLOSED = """
update pipeline_iterations set outcome = data->>'$.outcome', closed_at = "at", deadline_at = null
from facts where type = 'IterationClosed' and pipeline_iterations.iteration = data->>'$.iteration'
"""

MOVES = (
    IterationOpened, QualityRefused, CollectionFinished, ExportStarted, ExportFinished, TrainingAwaitsSlot,
    TrainingStarted, TrainingInterrupted, TrainingFinished, EvaluationStarted, PromotionAwaited, IterationClosed,
    StageRetried,
)  # fmt: skip
ENTERED = (IterationOpened, CollectionFinished, ExportFinished, TrainingFinished, PromotionAwaited, IterationClosed)

LOOP = ReadModel(
    "pipeline",
    6,
    TABLES + STEPS,
    [
        on(LaneRegistered, LaneEdited, sql=LANES),
        on(LanePaused, LaneResumed, sql=PAUSES),
        on(IterationOpened, sql=OPENED),
        on(*MOVES, sql=MOVED),
        on(*MOVES, StageExtended, StepOrdered, sql=DEADLINES),
        on(CollectionFinished, sql=COLLECTED),
        on(ExportFinished, sql=EXPORTED),
        on(TrainingFinished, sql=TRAINED),
        on(*ENTERED, StageRetried, StageExtended, StepOrdered, TrainingInterrupted, sql=REASONS),
        on(QualityRefused, sql=REFUSED),
        on(StepOrdered, QualityRefused, sql=ORDERED),
        on(IterationClosed, sql=CLOSED),
    ],
)
