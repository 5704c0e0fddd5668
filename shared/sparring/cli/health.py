"""`spar health` and `spar services`: what is well, what is not, since when, and what to do."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import nats.errors
from nats.aio.client import Client
from nats.js.errors import Error as JetStreamError
from nats.js.errors import NotFoundError

from sparring import catalogue
from sparring.cli.common import AsJson, At, Data, Nats, cell, footer, print_json, say_unheard, table, with_reader
from sparring.connection import close
from sparring.contracts.readings import ServiceBeat
from sparring.doctor.examination import beats
from sparring.errors import BadInput
from sparring.log import JetStreamLog
from sparring.place import Place, find
from sparring.reader import AsOf, Reader, connect
from sparring.report import SILENT_S, report, unheard

ISSUE_COLUMNS = ("kind", "about", "severity", "what", "since", "whose:owner", "remedy", "until")


def health(nats: Nats = None, data: Data = None, at: At = None, as_json: AsJson = False) -> None:
    """The score and its parts, the cluster's switch, and every open issue with since, owner and remedy."""

    async def ask(reader: Reader) -> dict[str, Any]:
        return report(reader) | {"unheard": unheard(reader, await reader.readings())}

    found, as_of = with_reader(nats, data, at, ask)
    if as_json:
        print_json(as_of, **found)
        return
    score, cluster = found["score"], found["cluster"]
    say_unheard(found["unheard"])
    print(
        f"{score['grade']}, {score['value']:.2f} since {cell(score['at'])}" if score else "no score yet: is health up?"
    )
    for term in score["terms"] if score else ():
        counted = (
            f"{term['value']:g}, at most {term['limit']:g}" if term["limit"] is not None else f"{term['value']:.2f}"
        )
        print(f"  {term['name']:<16} {counted}")
    nodes = ", ".join(f"{count} {state}" for state, count in found["nodes"].items())
    switched = f" by {cluster['by_whom']}: {cluster['reason']}" if cluster.get("by_whom") else ""
    print(f"cluster {cluster['state']}{switched}; nodes: {nodes or 'none'}")
    table(found["issues"], ISSUE_COLUMNS, empty="nothing is open")
    if found["thresholds"]:
        table(found["thresholds"], ("threshold", "value", "least", "most", "at:moved"), "Thresholds that moved")
    footer(as_of)


async def unhandled(nc: Client, service: str) -> dict[str, Any]:
    """How many messages wait for the service or are in its hands, and the age in seconds of the oldest of them; None where
    this user may not look at consumers."""
    js, now = nc.jetstream(timeout=5), datetime.now(UTC)
    waiting, oldest = 0, None
    for durable in next((one.durables() for one in catalogue.services() if one.name == service), ()):
        try:
            info = await js.consumer_info(durable.stream, durable.name)
            pending = (info.num_pending or 0) + (info.num_ack_pending or 0)
            if not pending:
                continue
            waiting += pending
            floor = info.ack_floor.stream_seq if info.ack_floor else 0
            for subject in durable.filters:
                first = await js.get_msg(durable.stream, seq=floor + 1, subject=subject, next=True)
                age_s = (now - first.time).total_seconds() if first.time else 0.0
                oldest = max(oldest or 0.0, age_s)
        except NotFoundError:
            continue
        except (nats.errors.Error, JetStreamError, TimeoutError):
            return {"waiting": None, "oldest_s": None}
    return {"waiting": waiting, "oldest_s": None if oldest is None else round(oldest, 1)}


async def _beats(place: Place) -> tuple[list[dict[str, Any]], AsOf]:
    """Nothing is folded: of services that stand still before a fact this is asked where nobody can fold it, either."""
    nc, rows = await connect(place), []
    try:
        end, now = await JetStreamLog(nc).end(), datetime.now(UTC)
        async for one in beats(nc):
            if isinstance(one.data, ServiceBeat):
                beat, up = one.data, one.age_s < SILENT_S
                tried = beat.handled + beat.failed
                rows.append(
                    beat.model_dump() | await unhandled(nc, beat.service)
                    | {"beat_s": round(one.age_s, 1), "up": up, "leader": up and beat.leader, "lag": max(0, end - beat.position),
                       "success": beat.handled / tried if tried else None, "rss_mb": beat.rss_bytes // 2**20}
                )  # fmt: skip
    finally:
        await close(nc)
    return sorted(rows, key=lambda row: (row["service"], row["replica"])), AsOf(end, now, 0.0)


def services(nats: Nats = None, data: Data = None, at: At = None, as_json: AsJson = False) -> None:
    """Each replica of each service by its last beat: position, lag, waiting messages, failures, memory."""
    if at is not None:
        raise BadInput(
            f"--at {at}: a beat is a reading, and readings are not kept; what was known of the services then is told by "
            f"`spar health --at {at}`, `spar alarms --at {at}` and `spar settings --at {at}`"
        )

    rows, as_of = asyncio.run(_beats(find(nats, data)))
    if as_json:
        print_json(as_of, services=rows)
        return
    columns = ("service", "replica", "up", "leader", "beat_s:beat s", "position", "lag", "waiting", "oldest_s:oldest s",
               "handled", "failed", "success", "redelivered", "loop_lag_s:loop lag s", "rss_mb:MB", "stuck")  # fmt: skip
    table(rows, columns, empty="no service beats: start them with `spar up`")
    footer(as_of)
