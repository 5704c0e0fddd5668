"""`spar health` and `spar services`: what is well, what is not, since when, and what to do."""

from __future__ import annotations

from typing import Any

from sparring.cli.common import AsJson, At, Data, Nats, cell, footer, print_json, table, with_reader
from sparring.contracts.readings import ServiceBeat
from sparring.reader import Reader

SILENT_S = 15.0


def health(nats: Nats = None, data: Data = None, at: At = None, as_json: AsJson = False) -> None:
    """The score and its parts, the cluster's switch, open alarms, back-pressure."""

    async def ask(reader: Reader) -> dict[str, Any]:
        score = reader.rows("select * from health_score")
        cluster = reader.rows("select * from health_cluster")
        return {
            "score": score[0] if score else None,
            "cluster": cluster[0] if cluster else {"state": "running"},
            "alarms": reader.rows("select * from health_alarms where state = 'raised' order by raised_at"),
            "queues": reader.rows("select * from health_queues where level <> 'none' order by queue"),
            "nodes": reader.rows(
                "select state, count(*) n from health_nodes where state <> 'forgotten' group by state order by state"
            ),
        }

    found, as_of = with_reader(nats, data, at, ask)
    if as_json:
        print_json(as_of, **found)
        return
    score = found["score"]
    print(
        f"{score['grade']}, {score['value']:.2f} since {cell(score['at'])}" if score else "no score yet: is health up?"
    )
    for term in score["terms"] if score else ():
        print(f"  {term['name']:<10} {term['value']:.2f}")
    print(
        f"cluster {found['cluster']['state']}; nodes: "
        + (", ".join(f"{n['n']} {n['state']}" for n in found["nodes"]) or "none")
    )
    table(found["alarms"], ("about", "severity", "text", "remedy", "raised_at:since", "times"), empty="no alarms")
    if found["queues"]:
        table(found["queues"], ("lane", "name", "level", "depth", "soft", "hard", "at:since"), "Back-pressure")
    footer(as_of)


def services(nats: Nats = None, data: Data = None, as_json: AsJson = False) -> None:
    """Each replica of each service by its last beat: position, lag, handled, failed, memory."""

    async def ask(reader: Reader) -> list[dict[str, Any]]:
        end = reader.projection.position
        rows = []
        for one in (await reader.readings()).values():
            if isinstance(one.data, ServiceBeat):
                beat = one.data
                rows.append(beat.model_dump() | {"beat_s": round(one.age_s, 1), "up": one.age_s < SILENT_S,
                                                 "lag": max(0, end - beat.position), "rss_mb": beat.rss_bytes // 2**20})  # fmt: skip
        return sorted(rows, key=lambda row: (row["service"], row["replica"]))

    rows, as_of = with_reader(nats, data, None, ask)
    if as_json:
        print_json(as_of, services=rows)
        return
    columns = ("service", "replica", "up", "leader", "beat_s:beat s", "position", "lag", "handled", "failed",
               "redelivered", "loop_lag_s:loop lag s", "rss_mb:MB")  # fmt: skip
    table(rows, columns, empty="no service beats: start them with `spar up`")
    footer(as_of)
