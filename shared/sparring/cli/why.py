"""`spar why LANE|TASK|NODE`: where it stands, and why."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from sparring.cli import why_task
from sparring.cli.common import AsJson, At, Data, Nats, cell, footer, print_json, with_reader
from sparring.cli.overview import held_back
from sparring.errors import BadInput
from sparring.reader import Reader

CURRENT = "select * from pipeline_iterations where lane = ? order by number desc limit 1"
RUNNING = """
select kind, state, count(*) n from orch_tasks where lane = ? and state in ('requested', 'assigned', 'started')
group by all order by all
"""
DECISIONS = """
select decided_at, gate, candidate, verdict, reason, statistics, pairs from lifecycle_gates
where lane = ? and verdict is not null order by decided_at desc limit 3
"""
DENIALS = (
    'select kind, node, reason, actual, lim, "at" from orch_denials where lane in (?, \'\') order by "at" desc limit 3'
)
PRESSURE = "select name, level, depth, soft, hard from health_queues where lane = ? and level <> 'none' order by name"
CLOSED = """
select iteration, outcome, reason, closed_at from pipeline_iterations where lane = ? and outcome is not null
order by number desc limit 3
"""


def why(
    name: Annotated[str, typer.Argument(help="A lane, a task or a node.")],
    nats: Nats = None,
    data: Data = None,
    at: At = None,
    as_json: AsJson = False,
) -> None:
    """Stage, since, what is awaited, from whom, until when; the last decisions with their numbers."""

    async def ask(reader: Reader) -> tuple[str, dict[str, Any]]:
        known = [row["lane"] for row in reader.rows("select lane from pipeline_lanes order by lane")]
        if name in known:
            return "lane", await of_lane(reader, name, at)
        task = await why_task.of_task(reader, name, at)
        if task is not None:
            return "task", task
        node = await why_task.of_node(reader, name, at)
        if node is not None:
            return "node", node
        nodes = [row["node"] for row in reader.rows("select node from health_nodes order by node")]
        raise BadInput(
            f"{name!r} is no lane, task or node; lanes: {', '.join(known) or 'none'}; nodes: {', '.join(nodes[:20]) or 'none'}; "
            "tasks: see spar tasks"
        )

    (what, found), as_of = with_reader(nats, data, at, ask)
    if as_json:
        print_json(as_of, **found)
        return
    say = {"lane": _say, "task": why_task.say_task, "node": why_task.say_node}[what]
    say(found, asked_then=at is not None)
    footer(as_of)


async def of_lane(reader: Reader, lane: str, at: str | None) -> dict[str, Any]:
    current = reader.rows(CURRENT, [lane])
    readings = {} if at else await reader.readings()
    up = sorted({one.data.service for one in readings.values() if hasattr(one.data, "service") and one.age_s < 15})
    one = reader.rows("from pipeline_lanes where lane = ?", [lane])[0]
    return {
        "lane": lane,
        "paused": one["paused"],
        "held_back": held_back(one, next(iter(reader.rows("from health_cluster")), None)),
        "now": current[0] if current else None,
        "services_up": up,
        "tasks": reader.rows(RUNNING, [lane]),
        "decisions": reader.rows(DECISIONS, [lane]),
        "denials": reader.rows(DENIALS, [lane]),
        "back_pressure": reader.rows(PRESSURE, [lane]),
        "closed": reader.rows(CLOSED, [lane]),
    }


def _say(found: dict[str, Any], *, asked_then: bool) -> None:
    now = found["now"]
    if now is None:
        print(f"{found['lane']}: registered, no iteration yet")
    else:
        print(f"{now['iteration']}: {now['stage']}, since {cell(now['since'])}")
    # behind a closed iteration pipeline opens the next one
    begun = now is not None and now["stage"] != "closed"
    owner = (begun and now["owner"]) or "pipeline"
    up = "" if asked_then else (", which is up" if owner in found["services_up"] else ", WHICH IS NOT BEATING")
    if found["held_back"]:
        what, remedy, since = found["held_back"]
        print(f"  held back  {what}" + (f", {cell(since)}" if since else ""))
        print(f"  remedy     {remedy}")
    if begun or not found["held_back"]:
        print(f"  waits for  {(now['awaits'] or 'nothing') if begun else 'its next iteration'}")
        print(f"  from       {owner}{up}")
        print(f"  until      {cell(now['deadline_at']) if begun else 'the next tick'}")
    for task in found["tasks"]:
        print(f"  tasks      {task['n']} {task['kind']} {task['state']}")
    for queue in found["back_pressure"]:
        print(f"  pressure   {queue['name']} {queue['level']}: {cell(queue['depth'])} (soft {queue['soft']:.0f})")
    for denial in found["denials"]:
        limits = f"{denial['actual']:.2f} against {denial['lim']:.2f}"
        print(
            f"  denied     {denial['kind']} on {denial['node'] or 'any node'}: {denial['reason']}, {limits}, {cell(denial['at'])}"
        )
    for gate in found["decisions"]:
        print(
            f"  decided    {gate['gate']} {gate['verdict']} ({gate['reason']}) {_numbers(gate['statistics'])} {cell(gate['decided_at'])}"
        )
    for closed in found["closed"]:
        print(
            f"  closed     {closed['iteration']} {closed['outcome']}: {closed['reason']}, {cell(closed['closed_at'])}"
        )


def _numbers(statistics: dict[str, Any] | None) -> str:
    if not statistics:
        return "without games"
    return (
        f"LLR {statistics['llr']:.2f} in [{statistics['lower']:.2f}, {statistics['upper']:.2f}], "
        f"Elo {statistics['elo']:+.0f} [{statistics['elo_low']:+.0f}, {statistics['elo_high']:+.0f}], "
        f"LOS {statistics['los']:.3f}, {statistics['games']} games"
    )
