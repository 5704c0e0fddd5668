"""`spar status`, `lanes`, `nodes`, `models`, `data`: where the loop stands."""

from __future__ import annotations

from collections import Counter
from typing import Any

from sparring.cli import overview
from sparring.cli.common import (
    AsJson,
    At,
    Data,
    Nats,
    check_lane,
    counted,
    elo,
    footer,
    interval,
    print_json,
    say_unheard,
    table,
    with_reader,
)
from sparring.reader import Reader
from sparring.report import unheard

LANE_COLUMNS = (
    "lane",
    "iteration",
    "stage",
    "since",
    "awaits",
    "games",
    "positions",
    "promotions",
    "model",
    "elo_text:Elo",
)
NODE_COLUMNS = ("node", "state", "since", "seats", "running", "kinds", "cpu", "gpu", "spooled", "beat_s:beat s")
MODELS = """
select m.lane, m.number, m.model, m.state, m.iteration, m.parent, m.registered_at, m.evidence,
    g.pairs, g.most_pairs, g.statistics, g.verdict, g.reason
from lifecycle_models m
left join lifecycle_gates g on g.lane = m.lane and g.candidate = m.model and g.purpose = 'gate'
order by m.lane, m.number
"""
ANCHORS = """
select lane, candidate, statistics, pairs from lifecycle_gates
where baseline = '' and statistics is not null qualify row_number() over (
    partition by lane, candidate order by purpose = 'anchor' desc, decided_at desc) = 1
"""
# a lane makes dozens of models a day; of those that are out the newest are shown
OVER, NEWEST = ("superseded", "rejected"), 10
BALANCE = "select * from sync_balance order by lane"
# games that nobody can use, or that lie on one node alone: why, where, and since when
NOT_SAFE = """
select b.lane, b.state, b.reason, b.node, coalesce(n.state, 'unknown') node_state, sum(b.games)::bigint games,
    count(*) batches, min(b.changed_at) since
from sync_batches b left join health_nodes n using (node) where b.state in ('recorded', 'quarantined', 'lost')
group by b.lane, b.state, b.reason, b.node, n.state order by b.state <> 'recorded', games desc limit 20
"""


def status(nats: Nats = None, data: Data = None, at: At = None, as_json: AsJson = False) -> None:
    """Lanes, nodes, alarms and dead letters at one moment."""

    async def ask(reader: Reader) -> tuple[Any, Any, Any, Any]:
        readings = await reader.readings()
        return (
            overview.lanes(reader),
            overview.nodes(reader, readings),
            overview.counts(reader),
            unheard(reader, readings),
        )

    (lanes_, nodes_, counts, unheard_), as_of = with_reader(nats, data, at, ask)
    if as_json:
        print_json(as_of, lanes=lanes_, nodes=nodes_, **counts, unheard=unheard_)
        return
    table(lanes_, LANE_COLUMNS, "Lanes", "none registered: spar lanes add FILE")
    table(nodes_, NODE_COLUMNS, "Nodes", "none joined: spar agent --nats URL")
    cluster = counts["cluster"] or "running"
    print(f"cluster {cluster}, {counted(counts['alarms'], 'alarm')}, {counted(counts['letters'], 'dead letter')}")
    say_unheard(unheard_)
    footer(as_of)


def lanes(nats: Nats = None, data: Data = None, at: At = None, as_json: AsJson = False) -> None:
    """Each lane: iteration, stage, what it waits for, games, model, Elo above generation 0."""

    async def ask(reader: Reader) -> Any:
        return overview.lanes(reader)

    rows, as_of = with_reader(nats, data, at, ask)
    if as_json:
        print_json(as_of, lanes=rows)
        return
    table(rows, (*LANE_COLUMNS, "share", "weight"), empty="none registered: spar lanes add FILE")
    footer(as_of)


def nodes(nats: Nats = None, data: Data = None, at: At = None, as_json: AsJson = False) -> None:
    """Each node: state, seats, what runs, load of the last beat (a reading: not kept, absent with --at)."""

    async def ask(reader: Reader) -> Any:
        return overview.nodes(reader, await reader.readings())

    rows, as_of = with_reader(nats, data, at, ask)
    if as_json:
        print_json(as_of, nodes=rows)
        return
    table(rows, NODE_COLUMNS, empty="none joined: spar agent --nats URL")
    footer(as_of)


def models(
    nats: Nats = None, data: Data = None, at: At = None, as_json: AsJson = False, lane: str = "", everything: bool = False
) -> None:  # fmt: skip
    """Each model: its gate's verdict, its rating in the lane's pool, and what was measured against generation 0."""

    async def ask(reader: Reader) -> Any:
        check_lane(reader, lane)
        rated = overview.ratings(reader)
        anchors = {(row["lane"], row["candidate"]): row for row in reader.rows(ANCHORS)}
        rows = reader.rows(MODELS)
        for row in rows:
            rating = rated.get((row["lane"], row["model"]))
            row["elo"], row["elo_sigma"] = (rating.elo, rating.sigma) if rating else (None, None)
            row["elo_text"] = rating.text if rating else None
            row["gate"] = _gate(row)
            anchor = anchors.get((row["lane"], row["model"]))
            row["above_generation0"] = anchor["statistics"] if anchor else None
            row["anchor"] = _anchor(anchor)
        return rows

    rows, as_of = with_reader(nats, data, at, ask)
    rows = [row for row in rows if lane in ("", row["lane"])]
    if as_json:
        print_json(as_of, models=rows)
        return
    shown = rows if everything else recent(rows)
    for row in shown:
        row["short"] = row["model"][:12]
    columns = ("lane", "number:no", "short:model", "state", "gate", "elo_text:Elo (95 %)", "anchor:against generation 0",
               "registered_at:registered")  # fmt: skip
    table(shown, columns, empty="no model yet")
    if len(shown) < len(rows):
        print(f"{len(rows) - len(shown)} older ones, superseded or rejected, are not shown: --all")
    footer(as_of)


def recent(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of each lane's models, in their order, those whose story goes on and the newest of those whose story is over."""
    newest, over = list[dict[str, Any]](), Counter[tuple[str, str]]()
    for row in reversed(rows):
        over[row["lane"], row["state"]] += 1
        if row["state"] not in OVER or over[row["lane"], row["state"]] <= NEWEST:
            newest.append(row)
    return newest[::-1]


def _gate(row: dict[str, Any]) -> str | None:
    """The verdict with its Elo, its pairs and its reason; how far the gate is while it plays."""
    if row["pairs"] is None:
        return None
    pairs = f"{row['pairs']} of at most {row['most_pairs']} pairs"
    if not row["verdict"]:
        return f"plays: {pairs}"
    if not row["statistics"]:
        return f"{row['verdict']}: {row['reason']}"
    return f"{row['verdict']} {elo(row['statistics']['elo'])}: {row['reason']}, {pairs}"


def _anchor(row: dict[str, Any] | None) -> str | None:
    if row is None:
        return None
    measured = row["statistics"]
    return f"{interval(measured)} LOS {measured['los']:.3f}"


def data(nats: Nats = None, data: Data = None, at: At = None, as_json: AsJson = False) -> None:
    """Is the data safe: per lane, produced = admitted + held + moving + quarantined + lost, in games; below it what is held
    by one node alone, in quarantine or lost, with the reason."""

    async def ask(reader: Reader) -> Any:
        return reader.rows(BALANCE), reader.rows(NOT_SAFE)

    (rows, unsafe), as_of = with_reader(nats, data, at, ask)
    for row in rows:
        parts = sum(row[part] or 0 for part in ("admitted", "held", "moving", "quarantined", "lost"))
        row["balanced"] = parts == row["produced"]
    if as_json:
        print_json(as_of, lanes=rows, balanced=all(row["balanced"] for row in rows), not_safe=unsafe)
        return
    columns = ("lane", "produced", "admitted", "held", "moving", "quarantined", "lost", "balanced")
    table(rows, columns, empty="no games yet")
    if unsafe:
        table(unsafe, ("lane", "state", "games", "batches", "node", "node_state:the node is", "since", "reason"),
              "On one node alone (recorded), in quarantine, or lost")  # fmt: skip
    footer(as_of)
