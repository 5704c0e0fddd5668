"""The state of the whole loop as rows: what the live screen, `spar status` and `spar lanes` show."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sparring.cli.common import elo
from sparring.cli.holds import HELD, NEWEST, PASSED, held_back
from sparring.reader import Reader
from sparring.statistics.pool import rate_pool

LANES = f"""
select l.lane, l.paused, l.paused_by, l.pause_reason, l.paused_at, l.spec, i.iteration, i.number, i.stage, i.step, i.ordered, i.since, i.awaits, i.owner, i.deadline_at,
    coalesce(b.produced, 0) games, coalesce(b.admitted, 0) admitted,
    coalesce((select sum(positions) from sync_batches s where s.lane = l.lane and s.state in ('admitted', 'retired')), 0)
        ::bigint positions,
    {PASSED} passed, {HELD} held,
    m.model, m.number model_number, coalesce(c.weight, 1.0) weight, coalesce(s.share, 0.0) share,
    (select count(*) from pipeline_iterations p where p.lane = l.lane and p.outcome = 'promoted') promotions
from pipeline_lanes l
left join {NEWEST} i using (lane)
left join sync_balance b using (lane)
left join (select lane, arg_max(model, number) model, max(number) number from lifecycle_models
    where state = 'production' group by lane) m using (lane)
left join lifecycle_curriculum c using (lane)
left join orch_shares s using (lane)
order by l.lane
"""

NODES = """
select n.node, n.state, n.since, n.seats, n.ephemeral, n.cores, n.gpus,
    count(t.task) running,
    string_agg(distinct t.kind, ' ' order by t.kind) kinds
from health_nodes n
left join orch_tasks t on t.node = n.node and t.state in ('assigned', 'started')
where n.state <> 'forgotten'
group by all order by n.node
"""

# dead letters that wait for something
OPEN_LETTERS = ("pending", "redriven", "abandoned")

MATCHES = "select lane, candidate, baseline, counts from lifecycle_matches where games > 0 order by lane, gate, task"
# what tells something of the models in production: a candidate that met one model alone tells nothing of others, and there are
# thousands of those in a week
TELLING = """
with met as (
    select lane, candidate from lifecycle_matches where games > 0 group by all having count(distinct baseline) > 1
    union select lane, baseline from lifecycle_matches where games > 0
    union select lane, model from lifecycle_models where state = 'production'
)
select lane, candidate, baseline, counts from lifecycle_matches semi join met using (lane, candidate)
where games > 0 order by lane, gate, task
"""


@dataclass(frozen=True)
class Rating:
    """Elo above the lane's generation 0, with one standard error."""

    elo: float
    sigma: float

    @property
    def text(self) -> str:
        return f"{elo(self.elo)} ± {1.96 * self.sigma:.0f}"


def ratings(reader: Reader, question: str = MATCHES) -> dict[tuple[str, str], Rating]:
    """Every measured model's rating by (lane, model): a fold over all matches of the lane's pool."""
    pools: dict[str, list[tuple[str, str, tuple[int, ...]]]] = {}
    for row in reader.rows(question):
        pools.setdefault(row["lane"], []).append((row["candidate"], row["baseline"], tuple(row["counts"])))
    found: dict[tuple[str, str], Rating] = {}
    for lane, matches in pools.items():
        for model, (value, sigma) in rate_pool(matches).items():
            found[lane, model] = Rating(value, sigma)
    return found


def lanes(reader: Reader) -> list[dict[str, Any]]:
    """One row a lane, the rating of the model in production included."""
    rated = ratings(reader, TELLING)
    rows = reader.rows(LANES)
    for row in rows:
        rating = rated.get((row["lane"], row["model"] or ""))
        row["elo"] = rating.elo if rating else None
        row["elo_text"] = rating.text if rating else None
        row["model"] = f"{row['model_number']} {row['model'][:8]}" if row["model"] else "generation 0"
        # the cluster's switch stands below the table
        holds = held_back(row)
        row["awaits"] = holds[0].what if holds else row["awaits"]
        for inner in ("spec", "ordered", "passed", "held"):
            del row[inner]
    return rows


def nodes(reader: Reader, readings: Any) -> list[dict[str, Any]]:
    """One row a node, with the load of its last beat."""
    rows = reader.rows(NODES)
    beats = {one.data.node: one for one in readings.values() if hasattr(one.data, "node") and hasattr(one.data, "boot")}
    for row in rows:
        beat = beats.get(row["node"])
        row["beat_s"] = round(beat.age_s, 1) if beat else None
        row["cpu"] = f"{beat.data.resources.cpu_share:.0%}" if beat else None
        row["spooled"] = beat.data.spooled if beat else None
        gpus = beat.data.resources.gpus if beat else ()
        row["gpu"] = " ".join("?" if gpu.utilisation is None else f"{gpu.utilisation:.0%}" for gpu in gpus) or None
    return rows


def counts(reader: Reader) -> dict[str, Any]:
    """The numbers of the screen's last line."""
    row = reader.rows(
        f"select (select count(*) from health_letters where state in {OPEN_LETTERS}) letters, "
        "(select count(*) from health_alarms where state = 'raised') alarms, "
        "(select any_value(state) from health_cluster) cluster"
    )[0]
    return {"sequence": reader.projection.position, **row}
