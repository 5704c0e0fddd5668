"""The live screen of `spar up`: one look at the whole loop; plain lines where there is no terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from sparring.cli.common import ago, span


@dataclass
class Look:
    """What is to be shown now."""

    lanes: Sequence[dict[str, Any]] = ()
    nodes: Sequence[dict[str, Any]] = ()
    counts: dict[str, Any] = field(default_factory=dict)
    facts_per_s: float = 0.0
    notes: Sequence[str] = ()


class Screen:
    """Redraws in a terminal; elsewhere prints a line a lane whenever its stage, model or wait changed."""

    def __init__(self, head: Sequence[str], console: Console | None = None) -> None:
        self._console = console or Console()
        self._head = list(head)
        self._live: Live | None = None
        self._told: dict[str, str] = {}

    def __enter__(self) -> Screen:
        if self._console.is_terminal:
            self._live = Live(console=self._console, refresh_per_second=4, screen=False, transient=False)
            self._live.__enter__()
        else:
            for line in self._head:
                self._print(line)
        return self

    def __exit__(self, *details: Any) -> None:
        if self._live is not None:
            self._live.__exit__(*details)
            self._live = None

    def say(self, line: str) -> None:
        if self._live is not None:
            self._live.console.print(line, highlight=False)
        else:
            self._print(line)

    def _print(self, line: str) -> None:
        print(line, flush=True)

    def show(self, look: Look) -> None:
        if self._live is not None:
            self._live.update(self._picture(look))
            return
        for lane in look.lanes:
            line = f"{lane['iteration'] or lane['lane']}: {lane['stage'] or 'registered'}, model {lane['model']}"
            line += f", Elo {lane['elo_text']}" if lane["elo_text"] else ""
            if self._told.get(lane["lane"]) != line:
                self._told[lane["lane"]] = line
                self._print(
                    f"{line} ({lane['games']} games, {lane['positions']} positions; log {look.counts['sequence']})"
                )

    def _picture(self, look: Look) -> Group:
        counts = look.counts
        tail = Text(
            f"log {counts.get('sequence', 0)}  {look.facts_per_s:.0f} facts/s  {counts.get('letters', 0)} dead letters  "
            f"{counts.get('alarms', 0)} alarms  cluster {counts.get('cluster') or 'running'}",
            style="dim",
        )
        notes = [Text(note, style="yellow") for note in look.notes]
        return Group(
            *(Text(line, style="dim") for line in self._head), _lanes(look.lanes), _nodes(look.nodes), tail, *notes
        )


def _lanes(rows: Sequence[dict[str, Any]]) -> Table:
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("lane", "iteration", "stage", "for", "waits for", "until"):
        grid.add_column(name, overflow="ellipsis", no_wrap=True)
    for name in ("games", "positions", "promoted", "Elo", "model"):
        grid.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        grid.add_row(
            row["lane"], str(row["number"] or "–"), row["stage"] or "–",
            ago(row["since"]).removesuffix(" ago") if row["since"] else "–",
            row["awaits"] or "–", ago(row["deadline_at"]) if row["deadline_at"] else "–",
            f"{row['games']:,}", f"{row['positions']:,}", str(row["promotions"]), row["elo_text"] or "–", row["model"],
        )  # fmt: skip
    return grid


def _nodes(rows: Sequence[dict[str, Any]]) -> Table:
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("node", "state", "runs"):
        grid.add_column(name)
    for name in ("seats", "tasks", "CPU", "GPU", "spooled", "beat"):
        grid.add_column(name, justify="right")
    for row in rows:
        beat = row["beat_s"]
        grid.add_row(
            row["node"], row["state"], row["kinds"] or "–", str(row["seats"]), str(row["running"]), row["cpu"] or "–",
            row["gpu"] or "–", str(row["spooled"] if row["spooled"] is not None else "–"),
            span(beat) if beat is not None else "–",
        )  # fmt: skip
    return grid
