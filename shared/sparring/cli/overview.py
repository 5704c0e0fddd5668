"""The state of the whole loop as rows: what the live screen, `spar status` and `spar lanes` show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sparring.contracts.lanes import LEAVES, Step
from sparring.reader import Reader
from sparring.statistics.pool import rate_pool

LANES = """
select l.lane, l.paused, l.paused_by, l.pause_reason, l.paused_at, l.spec, i.iteration, i.number, i.stage, i.step, i.ordered, i.since, i.awaits, i.owner, i.deadline_at,
    coalesce(b.produced, 0) games, coalesce(b.admitted, 0) admitted,
    coalesce((select sum(positions) from sync_batches s where s.lane = l.lane and s.state in ('admitted', 'retired')), 0)
        ::bigint positions,
    m.model, m.number model_number, coalesce(c.weight, 1.0) weight, coalesce(s.share, 0.0) share,
    (select count(*) from pipeline_iterations p where p.lane = l.lane and p.outcome = 'promoted') promotions
from pipeline_lanes l
left join (select * from pipeline_iterations qualify row_number() over (partition by lane order by number desc) = 1) i
    using (lane)
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

MATCHES = (
    "select lane, purpose, candidate, baseline, counts from lifecycle_matches where games > 0 order by lane, gate, task"
)


@dataclass(frozen=True)
class Rating:
    """Elo above the lane's generation 0, with one standard error."""

    elo: float
    sigma: float

    @property
    def text(self) -> str:
        return f"{self.elo:+.0f} ± {1.96 * self.sigma:.0f}"


def ratings(reader: Reader) -> dict[tuple[str, str], Rating]:
    """Every measured model's rating by (lane, model): a fold over all matches of the lane's pool."""
    pools: dict[str, list[tuple[str, str, tuple[int, ...]]]] = {}
    for row in reader.rows(MATCHES):
        pools.setdefault(row["lane"], []).append((row["candidate"], row["baseline"], tuple(row["counts"])))
    found: dict[tuple[str, str], Rating] = {}
    for lane, matches in pools.items():
        for model, (elo, sigma) in rate_pool(matches).items():
            found[lane, model] = Rating(elo, sigma)
    return found


def lanes(reader: Reader) -> list[dict[str, Any]]:
    """One row a lane, the rating of the model in production included."""
    rated = ratings(reader)
    rows = reader.rows(LANES)
    for row in rows:
        rating = rated.get((row["lane"], row["model"] or ""))
        row["elo"] = rating.elo if rating else None
        row["elo_text"] = rating.text if rating else None
        row["model"] = f"{row['model_number']} {row['model'][:8]}" if row["model"] else "generation 0"
        # the cluster's switch stands below the table
        holds = held_back(row, row)
        row["awaits"] = holds[0].what if holds else row["awaits"]
        del row["spec"], row["ordered"]
    return rows


@dataclass(frozen=True)
class Hold:
    """Something that was decided against a lane's going on, how to take it back, and since when it stands."""

    what: str
    remedy: str
    since: datetime | None = None


def held_back(
    lane: dict[str, Any], iteration: dict[str, Any] | None, cluster: dict[str, Any] | None = None
) -> list[Hold]:
    """Of rows of `pipeline_lanes`, of `pipeline_iterations` for its open iteration, and of `health_cluster`."""
    found, name, spec = [], lane["lane"], lane["spec"]
    if cluster is not None and cluster["state"] != "running":
        why = f": {cluster['reason']}" if cluster["reason"] else ""
        itself = "; it goes on by itself when the cause is gone" if cluster["automatic"] else ""
        what = f"the cluster is {cluster['state']} by {cluster['by_whom']}{why}"
        found.append(Hold(what, f"spar resume{itself}", cluster["at"]))
    if not spec["enabled"]:
        found.append(Hold("off: enabled = false", "set it to true in the lane file, then: spar lanes add FILE"))
    if lane["paused"]:
        why = f": {lane['pause_reason']}" if lane["pause_reason"] else ""
        found.append(Hold(f"paused by {lane['paused_by']}{why}", f"spar resume {name}", lane["paused_at"]))
    for step in by_hand(spec["auto"], iteration):
        what = f"by hand: {step} is not in the lane's auto"
        remedy = f"spar step {name} {step}" + (f", or spar reject {name}" if step == "promote" else "")
        found.append(Hold(what, f'{remedy}; add "{step}" to auto in the lane file to have it always'))
    return found


def by_hand(auto: Sequence[str], iteration: dict[str, Any] | None) -> list[Step]:
    """The steps that a person has to take before the iteration leaves what it waits for."""
    if iteration is None or iteration["step"] is None:
        return []
    leads_on = LEAVES.get(iteration["step"])
    wanted: list[Step] = ["sync"] if iteration["step"] == "games" else []
    if leads_on is not None and leads_on not in (iteration["ordered"] or ()):
        wanted.append(leads_on)
    return [step for step in wanted if step not in auto]


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
