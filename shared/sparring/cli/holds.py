"""What keeps a lane from going on by decision: of its file, of a person, of the cluster; and how to take it back."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sparring.contracts.lanes import LEAVES, Step
from sparring.lane_file import PROGRAMS
from sparring.reader import Reader

NEWEST = "(select * from pipeline_iterations qualify row_number() over (partition by lane order by number desc) = 1)"
# models that passed their gates and wait for a person
PASSED = """(select list({'model': p.model, 'number': p.number, 'at': p.changed_at} order by p.number) from lifecycle_models p
    where p.lane = l.lane and p.state = 'passed')"""
# batches that a lane which is synced by hand keeps where they are
HELD = """(select count(*) from sync_batches s left join health_nodes n using (node) where s.lane = l.lane
    and s.state = 'recorded' and not s.asked and not coalesce(n.ephemeral, false)
    and coalesce(n.state, 'healthy') in ('healthy', 'suspected'))"""
STANDING = f"""
select l.*, i.iteration, i.step, i.ordered, i.outcome, {PASSED} passed, {HELD} held
from pipeline_lanes l left join {NEWEST} i using (lane) where l.lane = ?
"""


@dataclass(frozen=True)
class Hold:
    """Something that was decided against a lane's going on, how to take it back, and since when it stands."""

    what: str
    remedy: str
    since: datetime | None = None


def standing(reader: Reader, lane: str) -> dict[str, Any] | None:
    """The lane's row as `held_back` and `by_hand` want it; None for a lane that is not registered."""
    return next(iter(reader.rows(STANDING, [lane])), None)


def held_back(lane: dict[str, Any], cluster: dict[str, Any] | None = None) -> list[Hold]:
    """Of a lane as it stands, and a row of `health_cluster`."""
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
    for step in by_hand(lane):
        always = f'add "{step}" to auto in the lane file to have it always'
        found.append(Hold(f"by hand: {step} is not in the lane's auto", f"spar step {name} {step}; {always}"))
    for one in lane["passed"] or ():
        which = "" if len(lane["passed"]) == 1 else f" --model {one['model'][:12]}"
        what = f"by hand: model {one['number']} {one['model'][:12]} passed its gate and waits for a person"
        remedy = f"spar step {name} promote{which}, or spar reject {name}{which}"
        found.append(Hold(what, remedy, one["at"]))
    return found


def by_hand(lane: dict[str, Any]) -> list[Step]:
    """The steps of its iteration that wait for a person; promotion is said of the models instead."""
    spec, wanted = lane["spec"], list[Step]()
    if lane["step"] == "games" and lane["held"]:
        wanted.append("sync")
    leads_on = LEAVES.get(lane["step"] or "")
    offered = leads_on in PROGRAMS and leads_on in spec["commands"]
    if leads_on is not None and offered and leads_on not in (lane["ordered"] or ()):
        wanted.append(leads_on)
    return [step for step in wanted if step not in spec["auto"]]
