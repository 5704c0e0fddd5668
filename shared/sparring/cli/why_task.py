"""`spar why TASK` and `spar why NODE`: where it stands, since when, what it waits for and what denied it."""

from __future__ import annotations

from typing import Any

from sparring.cli.common import ago, cell
from sparring.contracts.readings import Heartbeat
from sparring.envelope import recorded
from sparring.errors import CannotAnswer
from sparring.questions import ask
from sparring.reader import Reader
from sparring.report import up
from sparring.subjects import CARRIED, Ref

TASK = "select * from orch_tasks where task = ?"
NODE = "select * from health_nodes where node = ?"
DENIALS = """
select kind, node, lane, reason, actual, lim, terms, "at" from orch_denials
where kind = $kind and lane in ($lane, '') order by "at" desc limit 3
"""
OF_NODE = (
    'select kind, node, lane, reason, actual, lim, "at" from orch_denials where node = ? order by "at" desc limit 5'
)
RUNNING = """
select task, kind, lane, state, attempt, coalesce(started_at, assigned_at) since from orch_tasks
where node = ? and state in ('assigned', 'started') order by since
"""
BREAKERS = "select * from health_breakers where node = ? and state <> 'closed' order by since"
LATELY = """
select task, kind, lane, state, reason, "seconds", ended_at from orch_tasks where node = ? and ended_at is not null
order by ended_at desc limit 5
"""
AWAITS = {
    "requested": "a seat on a node", "assigned": "its node to start it", "started": "its program to finish",
    "finished": "nothing", "cancelled": "nothing", "abandoned": "nothing: whoever asked decides again",
}  # fmt: skip


async def of_task(reader: Reader, task: str) -> dict[str, Any] | None:
    """Everything about one task; None when there is none of that name."""
    found = reader.rows(TASK, [task])
    if not found:
        return None
    row, history = found[0], []
    spec: dict[str, Any] = {}
    for raw in await reader.log.load(Ref("selfplay-orch", "task", task).pattern):
        if raw.sequence > reader.projection.position or raw.subject.endswith("." + CARRIED):
            continue
        one = recorded(raw.sequence, raw.subject, raw.headers, raw.body, raw.at)
        told = one.fact.model_dump(mode="json", exclude={"task", "spec", "terms", "files", "evidence"})
        spec = spec or one.fact.model_dump(mode="json").get("spec", {})
        history.append({"sequence": one.sequence, "at": one.at, "fact": type(one.fact).__name__, **told})
    waits = row["state"] == "requested"
    cursor = reader.projection.con.execute(DENIALS, {"kind": row["kind"], "lane": row["lane"]})
    names = [str(column[0]) for column in cursor.description or []]
    denials = [dict(zip(names, values, strict=True)) for values in cursor.fetchall()] if waits else []
    node = reader.rows(NODE, [row["node"]]) if row["node"] else []
    return {
        "task": row, "awaits": AWAITS[row["state"]], "owner": "selfplay-orch" if waits else row["node"],
        "services_up": up(await reader.readings()), "node": node[0] if node else None, "denials": denials,
        "timeout_s": spec.get("timeout_s"), "needs": {k: spec[k] for k in ("gpu", "memory_bytes", "disk_bytes") if spec.get(k)},
        "history": history,
    }  # fmt: skip


async def of_node(reader: Reader, node: str) -> dict[str, Any] | None:
    """Everything about one node; None when none of that name joined."""
    found = reader.rows(NODE, [node])
    if not found:
        return None
    readings = await reader.readings()
    beats = [one for one in readings.values() if isinstance(one.data, Heartbeat) and one.data.node == node]
    try:
        now, nobody = [vars(one) for one in await ask(reader, "selfplay-orch", "denials", node=node)], ""
    except CannotAnswer as error:
        now, nobody = [], str(error)
    return {
        "node": found[0], "beat_s": round(beats[0].age_s, 1) if beats else None,
        "resources": beats[0].data.resources.model_dump() if beats else None,
        "running": reader.rows(RUNNING, [node]), "would_take": now, "nobody_knows": nobody,
        "denials": reader.rows(OF_NODE, [node]), "breakers": reader.rows(BREAKERS, [node]),
        "lately": reader.rows(LATELY, [node]), "services_up": up(readings),
    }  # fmt: skip


def say_task(found: dict[str, Any], *, asked_then: bool) -> None:
    row = found["task"]
    about = f" of iteration {row['iteration']}" if row["iteration"] else ""
    since = found["history"][-1]["at"] if found["history"] else row["requested_at"]
    print(
        f"{row['task']}: {row['kind']} for {row['lane']}{about}, {row['state']} {ago(since)}, asked by {row['by_whom']}"
    )
    print(f"  waits for  {found['awaits']}")
    if row["state"] == "requested":
        beats = "selfplay-orch" in found["services_up"]
        print(
            f"  from       selfplay-orch{'' if asked_then else ', which is up' if beats else ', WHICH IS NOT BEATING'}"
        )
        for denial in found["denials"]:
            where = denial["node"] or "any node"
            print(
                f"  denied     on {where}: {denial['reason']}, {denial['actual']:.2f} against {denial['lim']:.2f}, {cell(denial['at'])}"
            )
        if not found["denials"]:
            print("  denied     by nothing yet: it is its turn soon, or others of the call went first")
    elif found["node"]:
        print(f"  on         {row['node']}, which is {found['node']['state']}, attempt {row['attempt']}")
    if found["timeout_s"]:
        print(f"  may run    {found['timeout_s']:.0f} s")
    for name, value in found["needs"].items():
        print(f"  needs      {name} {value}")
    for one in found["history"]:
        rest = " ".join(f"{key}={value}" for key, value in one.items() if key in TOLD and value not in (None, ""))
        print(f"  {one['sequence']:>9}  {ago(one['at']):<14} {one['fact']} {rest}")


TOLD = ("attempt", "node", "reason", "retry_at", "seconds", "superseded", "by")


def say_node(found: dict[str, Any], *, asked_then: bool) -> None:
    row = found["node"]
    seats = sum(1 for _ in found["running"])
    print(f"{row['node']}: {row['state']} since {cell(row['since'])}, {seats} running of {row['seats']} seats"
          f"{', ephemeral' if row['ephemeral'] else ''}")  # fmt: skip
    if not asked_then:
        print(
            f"  last beat  {found['beat_s']} s ago"
            if found["beat_s"] is not None
            else "  last beat  NONE IS KEPT (the server keeps those of 15 minutes)"
        )
    if found["resources"]:
        known = found["resources"]
        free = known["memory_available_bytes"] / 2**30
        print(f"  load       CPU {known['cpu_share']:.0%} ({known['foreign_cpu_share']:.0%} of others), "
              f"memory free {free:.1f} GiB, disk free {known['disk_free_bytes'] / 2**30:.1f} GiB")  # fmt: skip
    for task in found["running"]:
        print(
            f"  runs       {task['kind']} {task['task']} attempt {task['attempt']}, {task['state']} {cell(task['since'])}"
        )
    if row["misfit"]:
        print(f"  misfit     {row['misfit']}: install the build of the services there")
    for answer in found["would_take"]:
        what = f"{answer['kind']} of {', '.join(answer['lanes'])}"
        if answer["allowed"]:
            print(f"  takes      {what}")
        elif answer["unknown"]:
            print(f"  unknown    {what}: {answer['reason']}")
        else:
            print(f"  refuses    {what}: {answer['reason']}, {answer['actual']:.2f} against {answer['limit']:.2f}")
    if not found["would_take"]:
        print(f"  unknown    {found['nobody_knows']}" if found["nobody_knows"] else
              "  takes      nothing: no lane that is on, not paused and not throttled has work for it")  # fmt: skip
    for one in found["breakers"]:
        print(f"  breaker    {one['state']} for the {one['times']}. time: {one['reason']}, until {cell(one['until'])}")
    for denial in found["denials"]:
        whose = f" of {denial['lane']}" if denial["lane"] else ""
        print(f"  denied     {denial['kind']}{whose}: {denial['reason']}, {denial['actual']:.2f} against {denial['lim']:.2f}, "
              f"{cell(denial['at'])}")  # fmt: skip
    for task in found["lately"]:
        why = f": {task['reason']}" if task["reason"] and task["state"] != "finished" else ""
        print(f"  lately     {task['kind']} {task['task']} {task['state']}{why}, {cell(task['ended_at'])}")
