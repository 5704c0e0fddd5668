"""What a run says of a cluster: seats used, games, wasted work, waits by reason, fairness, recovery, cost."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sparring.simulation.chronicle import Run
from sparring.simulation.cluster import Cluster

HOUR = 3600.0


def percentile(values: Sequence[float], share: float) -> float | None:
    """The smallest value that at least that share of the values does not exceed; None of nothing."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else None


def jain(values: Iterable[float]) -> float:
    """Jain's fairness index (Jain, Chiu, Hawe 1984): 1 when all are equal, 1/n when one has everything."""
    found = list(values)
    squares = sum(one * one for one in found)
    return sum(found) ** 2 / (len(found) * squares) if squares else 1.0


def used_s(runs: Iterable[Run], seats: Mapping[str, int]) -> float:
    """Seat-seconds in use: what runs on the pipeline's reserved seats beyond a node's own counts as well, but no node
    counts more than its seats."""
    moments: dict[str, list[tuple[float, int]]] = defaultdict(list)
    for run in runs:
        moments[run.node] += [(run.began, 1), (run.ended, -1)]
    total = 0.0
    for node, changes in moments.items():
        running, since = 0, 0.0
        for at, by in sorted(changes):
            total += min(running, seats.get(node, 1)) * (at - since)
            running, since = running + by, at
    return total


def report(cluster: Cluster) -> dict[str, Any]:
    """Everything as JSON holds it; durations in seconds, money in the providers' currency."""
    chronicle, now = cluster.chronicle, cluster.timeline.now
    chronicle.settle(now)
    runs = [*chronicle.runs, *unfinished(cluster)]
    offered = sum(one.offered_s for one in chronicle.presence.values())
    used = used_s(runs, {name: one.seats for name, one in chronicle.presence.items()})
    busy, wasted = sum(run.ended - run.began for run in runs), sum(run.ended - run.began for run in runs if run.wasted)
    cost = sum(
        chronicle.presence[name].alive_s / HOUR * agent.machine.kind.price for name, agent in cluster.agents.items()
    )
    games = sum(chronicle.games.values())
    lanes = lane_rows(cluster, runs)
    return {
        "seed": cluster.setup.seed,
        "nodes": cluster.setup.nodes,
        "hours": round(now / HOUR, 3),
        "facts": cluster.ledger.end,
        "events": cluster.timeline.events,
        "utilisation": round(used / offered, 4) if offered else 0.0,
        "games": games,
        "games_per_hour": round(games / (now / HOUR), 1) if now else 0.0,
        "games_lost": sum(chronicle.lost_games.values()),
        "wasted_share": round(wasted / busy, 4) if busy else 0.0,
        "tasks": dict(sorted(chronicle.counts.items())),
        "promotions": len(chronicle.promotions),
        "elo": round(max((cluster.strengths.of(model) for *_, model in chronicle.promotions), default=0.0), 1),
        "waits": [wait_row(kind, waits) for kind, waits in sorted(chronicle.waits.items())],
        "reasons": dict(chronicle.denied.most_common()),
        "fairness": round(jain(row["seat_s"] for row in lanes), 4),
        "starvation_s": round(max((row["longest_gap_s"] for row in lanes), default=0.0), 1),
        "lanes": lanes,
        "departures": len(chronicle.departures),
        "recovery": {
            "orphaned": len(chronicle.recoveries),
            "p50_s": _rounded(percentile(chronicle.recoveries, 0.5)),
            "p99_s": _rounded(percentile(chronicle.recoveries, 0.99)),
            "noticed_p99_s": _rounded(percentile(chronicle.detections, 0.99)),
        },
        "cost": round(cost, 2),
        "cost_per_million_games": round(1e6 * cost / games, 2) if games else None,
        "violations": cluster.watcher.violations if cluster.watcher else [],
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)


def unfinished(cluster: Cluster) -> list[Run]:
    """What still runs, up to now."""
    now = cluster.timeline.now
    return [
        Run(agent.name, one.order.spec.lane, one.order.spec.kind, one.began, now, False)
        for agent in cluster.agents.values() if agent.alive
        for one in agent.running.values() if one.working
    ]  # fmt: skip


def wait_row(kind: str, waits: Sequence[float]) -> dict[str, Any]:
    return {
        "kind": kind, "placed": len(waits), "p50_s": _rounded(percentile(waits, 0.5)),
        "p90_s": _rounded(percentile(waits, 0.9)), "most_s": _rounded(max(waits, default=0.0)),
    }  # fmt: skip


def lane_rows(cluster: Cluster, runs: Sequence[Run]) -> list[dict[str, Any]]:
    """A row per lane; `seat_s` are seat-seconds of self-play."""
    chronicle, seats = cluster.chronicle, defaultdict[str, float](float)
    for run in runs:
        if run.kind == "selfplay":
            seats[run.lane] += run.ended - run.began
    rows = []
    for lane in cluster.setup.lanes:
        promoted = [model for _, name, _, model in chronicle.promotions if name == lane.name]
        rows.append({
            "lane": lane.name,
            "games": chronicle.games[lane.name],
            "admitted": chronicle.admitted[lane.name],
            "seat_s": round(seats[lane.name], 1),
            "iterations": sum(n for (name, _), n in chronicle.outcomes.items() if name == lane.name),
            "promoted": chronicle.outcomes[lane.name, "promoted"],
            "rejected": chronicle.outcomes[lane.name, "rejected"],
            "failed": chronicle.outcomes[lane.name, "failed"],
            "elo": round(cluster.strengths.of(promoted[-1]), 1) if promoted else 0.0,
            "longest_gap_s": round(chronicle.gaps.get(lane.name, 0.0), 1),
        })  # fmt: skip
    return rows
