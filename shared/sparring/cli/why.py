"""`spar why LANE|TASK|NODE|MODEL`: where it stands, and why."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from sparring.cli import why_model, why_task
from sparring.cli.common import AsJson, At, Data, Nats, cell, footer, interval, lanes_of, print_json, with_reader
from sparring.cli.holds import Hold, held_back, standing
from sparring.errors import BadInput, CannotAnswer
from sparring.questions import ask
from sparring.reader import Reader
from sparring.report import NODES, up

CURRENT = "select * from pipeline_iterations where lane = ? order by number desc limit 1"
RUNNING = """
select kind, state, count(*) n from orch_tasks where lane = ? and state in ('requested', 'assigned', 'started')
group by all order by all
"""
DECISIONS = """
select decided_at, gate, candidate, verdict, reason, statistics, pairs from lifecycle_gates
where lane = ? and verdict is not null order by decided_at desc limit 3
"""
# what is said of the lane itself is not pushed out by what fifty nodes are told; a node that is gone is in nobody's way
DENIALS = """
select kind, node, reason, actual, lim, "at" from orch_denials left join health_nodes using (node)
where lane in (?, '') and coalesce(state, '') not in ('lost', 'forgotten', 'retired')
order by lane = '', "at" desc limit 3
"""
PRESSURE = """
select name, level, depth, soft, hard from health_queues where lane in (?, '*') and level <> 'none' order by name
"""
CLOSED = """
select iteration, outcome, reason, closed_at from pipeline_iterations where lane = ? and outcome is not null
order by number desc limit 3
"""
ADMITTED = """
select coalesce(sum(games), 0)::bigint games, coalesce(sum(positions), 0)::bigint positions from sync_batches
where lane = ? and state in ('admitted', 'retired')
"""
UNUSABLE = """
select state, reason, sum(games)::bigint games, max(changed_at) "at" from sync_batches
where lane = ? and state in ('quarantined', 'lost') and changed_at >= ? group by all order by games desc limit 3
"""


def why(
    name: Annotated[
        str, typer.Argument(help="A lane, a task, a node, a model (six characters of its hash will do) or a gate.")
    ],
    nats: Nats = None,
    data: Data = None,
    at: At = None,
    as_json: AsJson = False,
) -> None:
    """Where it stands, and why: what a lane awaits, from whom, until when, and its last decisions; what a task, a node or a
    model went through, with the numbers."""

    async def answer(reader: Reader) -> tuple[str, dict[str, Any], bool]:
        known = lanes_of(reader)
        if name in known:
            return "lane", await of_lane(reader, name), reader.past
        task = await why_task.of_task(reader, name)
        if task is not None:
            return "task", task, reader.past
        node = await why_task.of_node(reader, name)
        if node is not None:
            return "node", node, reader.past
        model = await why_model.of_model(reader, name)
        if model is not None:
            return "model", model, reader.past
        nodes = [row["node"] for row in reader.rows("select node from health_nodes order by node")]
        raise BadInput(
            f"{name!r} is no lane, task, node, model or gate; lanes: {', '.join(known) or 'none'}; nodes: {', '.join(nodes[:20]) or 'none'}; "
            "tasks: see spar tasks; models: see spar models"
        )

    (what, found, past), as_of = with_reader(nats, data, at, answer)
    if as_json:
        print_json(as_of, **found)
        return
    say = {"lane": _say, "task": why_task.say_task, "node": why_task.say_node, "model": why_model.say_model}[what]
    say(found, asked_then=past)
    footer(as_of)


async def of_lane(reader: Reader, lane: str) -> dict[str, Any]:
    current = reader.rows(CURRENT, [lane])
    now = current[0] if current else None
    begun = now is not None and now["stage"] != "closed"
    one = standing(reader, lane)
    assert one is not None
    cluster = next(iter(reader.rows("from health_cluster")), None)
    step = now["step"] if now else None
    nodes = {row["state"]: row["n"] for row in reader.rows(NODES)}
    return {
        "lane": lane,
        "paused": one["paused"],
        "held_back": [asdict(hold) for hold in held_back(one, cluster)],
        "now": now,
        "admitted": reader.rows(ADMITTED, [lane])[0] if step == "games" else None,
        "unusable": reader.rows(UNUSABLE, [lane, now["opened_at"]]) if begun and now else [],
        "slot": await _slot(reader, lane) if step == "slot" else None,
        "nodes": nodes,
        "services_up": up(await reader.readings()),
        "tasks": reader.rows(RUNNING, [lane]),
        "decisions": reader.rows(DECISIONS, [lane]),
        "denials": reader.rows(DENIALS, [lane]),
        "back_pressure": reader.rows(PRESSURE, [lane]),
        "closed": reader.rows(CLOSED, [lane]),
    }


async def _slot(reader: Reader, lane: str) -> dict[str, Any] | None:
    """The lane's claim in the queue for training slots; None when it has none, or nobody can tell."""
    try:
        waits = await ask(reader, "training-slots", "waits")
    except CannotAnswer:
        return None
    return next((asdict(one) for one in waits if one.lane == lane), None)


def _say(found: dict[str, Any], *, asked_then: bool) -> None:
    now = found["now"]
    # behind a closed iteration pipeline opens the next one
    begun = now is not None and now["stage"] != "closed"
    if now is None:
        print(f"{found['lane']}: registered, no iteration yet")
    else:
        print(f"{now['iteration']}: {now['stage']}, since {cell(now['since'])}")
    for hold in (Hold(**one) for one in found["held_back"]):
        print(f"  held back  {hold.what}" + (f", {cell(hold.since)}" if hold.since else ""))
        print(f"  remedy     {hold.remedy}")
    if begun or not found["held_back"]:
        _say_wait(found, now if begun else None, asked_then)
    if not found["nodes"].get("healthy"):
        known = ", ".join(f"{count} {state}" for state, count in found["nodes"].items())
        print(f"  no node    can work: {known or 'none has joined'}; see spar nodes; spar agent --nats URL starts one")
    for task in found["tasks"]:
        print(f"  tasks      {task['n']} {task['kind']} {task['state']}")
    if found["tasks"] and not asked_then and "selfplay-orch" not in found["services_up"]:
        # whoever waits for them waits for it, too: it alone records how they end
        print("  of         selfplay-orch, WHICH IS NOT BEATING")
    for queue in found["back_pressure"]:
        print(f"  pressure   {queue['name']} {queue['level']}: {cell(queue['depth'])} (soft {queue['soft']:.0f})")
    for denial in found["denials"]:
        limits = f"{denial['actual']:.2f} against {denial['lim']:.2f}"
        where = denial["node"] or "any node"
        print(f"  denied     {denial['kind']} on {where}: {denial['reason']}, {limits}, {cell(denial['at'])}")
    for gate in found["decisions"]:
        numbers = _numbers(gate["statistics"])
        print(f"  decided    {gate['gate']} {gate['verdict']} ({gate['reason']}) {numbers} {cell(gate['decided_at'])}")
    for closed in found["closed"]:
        print(
            f"  closed     {closed['iteration']} {closed['outcome']}: {closed['reason']}, {cell(closed['closed_at'])}"
        )


def _say_wait(found: dict[str, Any], now: dict[str, Any] | None, asked_then: bool) -> None:
    """What is awaited, of whom, until when, and how far it is; `now` is None between two iterations."""
    owner = (now and now["owner"]) or "pipeline"
    beats = "" if asked_then else (", which is up" if owner in found["services_up"] else ", WHICH IS NOT BEATING")
    print(f"  waits for  {(now['awaits'] or 'nothing') if now else 'its next iteration'}")
    print(f"  from       {owner}{beats}")
    print(f"  until      {cell(now['deadline_at']) if now else 'the next tick'}")
    if now is None:
        return
    if found["admitted"] and now["min_games"] is not None:
        games = max(0, found["admitted"]["games"] - now["games_before"])
        positions = max(0, found["admitted"]["positions"] - now["positions_before"])
        print(f"  has        {games} of {now['min_games']} new games, {positions} of {now['min_positions']} positions")
    if now["stage"] == "collecting" and now["refused"]:
        print(f"  refused    its last data set: {', '.join(_term(one) for one in now['refused'])}")
    for one in found["unusable"]:
        print(
            f"  unusable   {one['games']} games, {one['state']} since it was opened: {one['reason']}, {cell(one['at'])}"
        )
    if found["slot"]:
        slot = found["slot"]
        until = f", until {cell(slot['until'])}" if slot["until"] else ""
        print(f"  slot       place {slot['place']} in the queue: {slot['why']}{until}; see spar slots")
    if now["reason"] or (now["attempt"] or 1) > 1:
        print(f"  attempt    {now['attempt'] or 1}" + (f": {now['reason']}" if now["reason"] else ""))


def _term(one: dict[str, Any]) -> str:
    limit = one.get("limit")
    return f"{one['name']} {one['value']:.2f}" + (f" against {limit:.2f}" if limit is not None else "")


def _numbers(statistics: dict[str, Any] | None) -> str:
    if not statistics:
        return "without games"
    return (
        f"LLR {statistics['llr']:.2f} in [{statistics['lower']:.2f}, {statistics['upper']:.2f}], "
        f"Elo {interval(statistics)}, LOS {statistics['los']:.3f}, {statistics['games']} games"
    )
