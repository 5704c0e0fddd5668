"""What differs between two moments of one log, as sentences under the words that an operator uses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from sparring.cli import overview
from sparring.hearing import heard
from sparring.reader import Reader

Rows = Mapping[Any, Mapping[str, Any]]


async def changes(before: Reader, after: Reader) -> dict[str, list[str]]:
    """Headings to sentences; headings without a sentence are left out."""
    found = {
        "lanes": [*_lanes(before, after)],
        "models": [*_models(before, after)],
        "data": [*_data(before, after)],
        "nodes": [*_states(before, after, "node", "select node, state from health_nodes")],
        "slots": [*_slots(before, after)],
        "cluster": [*_states(before, after, "cluster", "select cluster, state from health_cluster")],
        "trouble": [*_trouble(before, after)],
        "settings": [*await _settings(before, after)],
    }
    return {heading: lines for heading, lines in found.items() if lines}


def _by(reader: Reader, key: str, sql: str) -> Rows:
    return {row[key]: row for row in reader.rows(sql)}


def _lanes(before: Reader, after: Reader) -> Iterable[str]:
    old = {row["lane"]: row for row in overview.lanes(before)}
    for row in overview.lanes(after):
        was = old.get(row["lane"])
        if was is None:
            yield f"{row['lane']} is registered"
            was = {"number": 0, "games": 0, "positions": 0, "stage": None, "paused": False, "iteration": None}
        said = []
        if row["games"] != was["games"]:
            said.append(f"{row['games'] - was['games']:+d} games, {row['positions'] - was['positions']:+d} positions")
        closed = _closed(before, after, row["lane"])
        if closed:
            said.append("closed " + ", ".join(f"{count} {outcome}" for outcome, count in closed.items()))
        if row["iteration"] != was["iteration"] or row["stage"] != was["stage"]:
            said.append(
                f"now {row['iteration']} {row['stage']}, was {was['iteration'] or 'nowhere'} {was['stage'] or ''}".rstrip()
            )
        if row["paused"] != was["paused"]:
            said.append("paused" if row["paused"] else "resumed")
        if said:
            yield f"{row['lane']}: {'; '.join(said)}"


def _closed(before: Reader, after: Reader, lane: str) -> dict[str, int]:
    sql = "select outcome, count(*) n from pipeline_iterations where lane = ? and outcome is not null group by 1"
    old, new = ({row["outcome"]: row["n"] for row in reader.rows(sql, [lane])} for reader in (before, after))
    return {outcome: n - old.get(outcome, 0) for outcome, n in new.items() if n != old.get(outcome, 0)}


def _models(before: Reader, after: Reader) -> Iterable[str]:
    sql = "select lane, model, number, state from lifecycle_models"
    old, new = ({(row["lane"], row["model"]): row for row in reader.rows(sql)} for reader in (before, after))
    rated, failed = overview.ratings(after), Counter[str]()
    for place, row in sorted(new.items(), key=lambda one: (one[0][0], one[1]["number"])):
        was = old[place]["state"] if place in old else "not there"
        if row["state"] == was:
            continue
        if row["state"] == "rejected":
            failed[row["lane"]] += 1
            continue
        elo = f", Elo {rated[place].text}" if place in rated else ""
        yield f"{row['lane']} model {row['number']} {row['model'][:10]}: {was} → {row['state']}{elo}"
    for lane, count in failed.items():
        yield f"{lane}: {count} rejected"


def _data(before: Reader, after: Reader) -> Iterable[str]:
    old = _by(before, "lane", "from sync_balance")
    for lane, row in _by(after, "lane", "from sync_balance").items():
        was = old.get(lane, {})
        moved = {name: (value or 0) - (was.get(name) or 0) for name, value in row.items() if name != "lane"}
        said = [f"{number:+d} {name}" for name, number in moved.items() if number]
        if said:
            yield f"{lane}: {', '.join(said)} games"


def _states(before: Reader, after: Reader, what: str, sql: str) -> Iterable[str]:
    old = _by(before, what, sql)
    for name, row in sorted(_by(after, what, sql).items()):
        was = old[name]["state"] if name in old else "not there"
        if row["state"] != was:
            yield f"{what} {name}: {was} → {row['state']}"


def _slots(before: Reader, after: Reader) -> Iterable[str]:
    sql = "select lane, state, holder from slots_pool"
    old = _by(before, "lane", sql)
    for lane, row in sorted(_by(after, "lane", sql).items()):
        was, now = (_slot(one) for one in (old.get(lane, {"state": "free", "holder": ""}), row))
        if now != was:
            yield f"{lane}: {was} → {now}"


def _slot(row: Mapping[str, Any]) -> str:
    return f"held by {row['holder']}" if row["state"] == "held" else str(row["state"])


def _trouble(before: Reader, after: Reader) -> Iterable[str]:
    alarms = "select alarm, state, times, severity, text from health_alarms"
    old = _by(before, "alarm", alarms)
    for name, row in sorted(_by(after, "alarm", alarms).items()):
        was = old.get(name, {"state": "cleared", "times": 0})
        if row["state"] != was["state"] or row["times"] != was["times"]:
            yield f"alarm {name} {row['state']}, {row['severity']}: {row['text']}"
    letters = "select letter, state from health_letters"
    known = _by(before, "letter", letters)
    now = _by(after, "letter", letters)
    fresh = sum(letter not in known for letter in now)
    moved = Counter(row["state"] for name, row in now.items() if name in known and row["state"] != known[name]["state"])
    if fresh or moved:
        ends = "".join(f", {count} {state}" for state, count in sorted(moved.items()))
        yield f"dead letters: {fresh} new{ends}"


async def _settings(before: Reader, after: Reader) -> list[str]:
    said = []
    for raw in await after.log.load("evt.*.settings.*.SettingsAdopted", before.projection.position):
        one = heard(raw) if raw.sequence <= after.projection.position else None
        if one is not None:
            said.append(
                f"{one.fact.id} adopted {getattr(one.fact, 'hash', '')} under build {getattr(one.fact, 'build', '')}"
            )
    edits = await after.log.load("evt.pipeline.lane.*.LaneEdited", before.projection.position)
    for raw in edits:
        one = heard(raw) if raw.sequence <= after.projection.position else None
        if one is not None:
            said.append(f"lane {one.fact.id} was edited: {', '.join(getattr(one.fact, 'changed', ()))}")
    return said
