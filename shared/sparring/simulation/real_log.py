"""What an exported log says of a real cluster: its lanes, nodes, durations, failures and what people asked for."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from sparring.contracts.health import NodeJoined, NodeLost
from sparring.contracts.lanes import LaneSpec
from sparring.contracts.parts import TaskSpec
from sparring.contracts.pipeline import LaneEdited, LaneRegistered
from sparring.contracts.selfplay_orch import RequestTask, TaskFailed, TaskFinished, TaskRequested, TaskStarted
from sparring.decider import Recorded
from sparring.envelope import recorded
from sparring.errors import BadInput, Permanent
from sparring.simulation.machines import Churn
from sparring.simulation.setup import DAY, Setup, Work
from sparring.subjects import CARRIED

OWN = ("selfplay-orch", "pipeline", "lifecycle")


@dataclass
class Profile:
    """`durations` in seconds per kind, of self-play per game; `arrivals` are tasks that people or programs asked for,
    with the seconds since the log's first fact."""

    lanes: dict[str, LaneSpec] = field(default_factory=dict)
    nodes: set[str] = field(default_factory=set)
    durations: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    positions_per_game: float = 40.0
    started: int = 0
    failed: int = 0
    lost: int = 0
    arrivals: list[tuple[float, TaskSpec]] = field(default_factory=list)
    seconds: float = 0.0

    def setup(self, base: Setup) -> Setup:
        """The base, with what the log knows better."""
        days = max(self.seconds / DAY, 1e-6)
        share = self.lost / max(1, len(self.nodes)) / days
        work = replace(
            base.work, drawn={kind: tuple(found) for kind, found in self.durations.items()},
            failing=self.failed / max(1, self.started), positions=max(1, round(self.positions_per_game)),
        )  # fmt: skip
        return replace(
            base, lanes=tuple(self.lanes.values()) or base.lanes, work=work, churn=Churn(share),
            nodes=len(self.nodes) or base.nodes,
        )  # fmt: skip

    def orders(self) -> Iterator[tuple[float, RequestTask]]:
        for number, (at, spec) in enumerate(self.arrivals, start=1):
            yield at, RequestTask(task=f"arrival-{number}", spec=spec, by="real-log")


def facts(file: Path) -> Iterator[Recorded]:
    """The facts of an export: a JSON object a line with sequence, time, subject, headers and body.

    Raises BadInput naming the line.
    """
    try:
        handle = file.open()
    except OSError as error:
        raise BadInput(f"--real-log {file}: {error.strerror}; name a file that `spar export` wrote") from error
    with handle:
        for number, line in enumerate(handle, start=1):
            if line.strip():
                one = _fact(file, number, line)
                if one is not None:
                    yield one


def _fact(file: Path, number: int, line: str) -> Recorded | None:
    try:
        raw: dict[str, Any] = json.loads(line)
        if "subject" not in raw and "sequence" not in raw:
            # a slice may begin with a line about itself
            return None
        subject, body = str(raw["subject"]), raw["body"]
        if not subject.startswith("evt.") or subject.endswith("." + CARRIED) or subject.startswith("evt.ext-"):
            return None
        text = body if isinstance(body, str) else json.dumps(body)
        at = datetime.fromisoformat(str(raw["time"]))
        return recorded(int(raw["sequence"]), subject, raw.get("headers") or {}, text.encode(), at)
    except (ValueError, KeyError, TypeError, Permanent) as error:
        raise BadInput(f"--real-log {file}, line {number}: {error}; write it anew with `spar export`") from error


def profile(file: Path) -> Profile:
    """Reads an export once."""
    found, begun, first = Profile(), dict[str, datetime](), None
    kinds: dict[str, str] = {}
    games = positions = 0
    for one in facts(file):
        first = first or one.at
        found.seconds = (one.at - first).total_seconds()
        match one.fact:
            case LaneRegistered(spec=spec) | LaneEdited(spec=spec):
                found.lanes[spec.name] = spec
            case NodeJoined(node=node):
                found.nodes.add(node)
            case NodeLost():
                found.lost += 1
            case TaskRequested(task=task, spec=spec, by=by):
                kinds[task] = spec.kind
                if by not in OWN:
                    found.arrivals.append((found.seconds, spec))
            case TaskStarted(task=task):
                begun[task] = one.at
                found.started += 1
            case TaskFailed():
                found.failed += 1
            case TaskFinished(task=task, kind=kind, seconds=seconds, evidence=evidence):
                played = int(evidence.get("games", 0) or 0)
                if kind == "selfplay" and played:
                    games, positions = games + played, positions + int(evidence.get("positions", 0) or 0)
                    found.durations[kind].append(seconds / played)
                elif kind != "selfplay":
                    found.durations[kind].append(seconds)
    if first is None:
        raise BadInput(f"--real-log {file} holds no fact; write it anew with `spar export`")
    if games and positions:
        found.positions_per_game = positions / games
    return found


__all__ = ["Profile", "Work", "facts", "profile"]
