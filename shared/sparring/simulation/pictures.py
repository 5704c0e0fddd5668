"""The timeline of a run as a picture: what each node ran when, and how each lane moved; HTML by hand, PNG by Pillow.

Pillow is one wheel without dependencies; a plotting library would bring ten times that for rectangles and labels.
"""

from __future__ import annotations

import colorsys
import html
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparring.errors import BadInput
from sparring.simulation.chronicle import Run
from sparring.simulation.cluster import Cluster
from sparring.simulation.report import unfinished

WIDTH, LEFT, TOP, ROW, GAP = 1400, 90, 60, 12, 26
MOST_ROWS = 60
KINDS = {"export": "#7a7a7a", "train": "#c0392b", "evaluate": "#8e44ad", "tune": "#16a085", "transfer": "#b7950b"}
INK, PALE, PAPER, GONE = "#222222", "#e6e6e6", "#ffffff", "#f2d7d5"


@dataclass(frozen=True)
class Box:
    x: float
    y: float
    width: float
    height: float
    colour: str
    title: str = ""


@dataclass(frozen=True)
class Label:
    x: float
    y: float
    text: str
    size: int = 11


@dataclass
class Drawing:
    """Boxes and labels on white paper; the same for both formats."""

    height: int
    boxes: list[Box]
    labels: list[Label]


def colours(lanes: Sequence[str]) -> dict[str, str]:
    """A hue for each lane; self-play wears its lane's colour, other kinds their own."""
    found = {}
    for number, lane in enumerate(lanes):
        rgb = colorsys.hls_to_rgb((0.58 + number / max(1, len(lanes))) % 1.0, 0.58, 0.55)
        found[lane] = "#" + "".join(f"{round(255 * one):02x}" for one in rgb)
    return found


def draw(cluster: Cluster, summary: dict[str, Any]) -> Drawing:
    """Nodes first (at most 60 of them), then a band per lane with its promotions and back-pressure."""
    now, chronicle = max(cluster.timeline.now, 1.0), cluster.chronicle
    lanes = [lane.name for lane in cluster.setup.lanes]
    shades, scale = colours(lanes), (WIDTH - LEFT - 20) / now
    nodes = list(cluster.agents)[:MOST_ROWS]
    drawing = Drawing(0, [], [Label(10, 12, _headline(summary), 14), Label(10, 34, _legend(), 11)])
    _legend_boxes(drawing, lanes, shades)
    rows: dict[str, list[Run]] = defaultdict(list)
    runs = [*chronicle.runs, *unfinished(cluster)]
    for run in runs:
        rows[run.node].append(run)
    y = TOP
    for node in nodes:
        drawing.labels.append(Label(10, y, node, 10))
        drawing.boxes.append(Box(LEFT, y, WIDTH - LEFT - 20, ROW - 2, PALE))
        drawing.boxes += _node_boxes(rows[node], y, scale, shades)
        y += ROW
    for at, node, how in chronicle.departures:
        if node in nodes:
            drawing.boxes.append(Box(LEFT + at * scale - 1, TOP + ROW * nodes.index(node), 2, ROW - 2, "#000000", how))
    y += GAP
    for lane in lanes:
        y = _lane_band(drawing, cluster, lane, runs, y, scale, shades[lane])
    _axis(drawing, now, y, scale)
    drawing.height = y + 40
    return drawing


def _headline(summary: dict[str, Any]) -> str:
    return (
        f"{summary['nodes']} nodes, {summary['hours']:.1f} h, seed {summary['seed']}: "
        f"{summary['utilisation']:.1%} of the seats used, {summary['games']:,} games, "
        f"{summary['promotions']} promotions, {summary['wasted_share']:.1%} wasted"
    )


def _legend() -> str:
    return "self-play by lane, other work by kind; a black stroke is a node that leaves"


def _legend_boxes(drawing: Drawing, lanes: Sequence[str], shades: dict[str, str]) -> None:
    x = 520.0
    for name, colour in [*((lane, shades[lane]) for lane in lanes[:8]), *KINDS.items()]:
        drawing.boxes.append(Box(x, 36, 10, 10, colour))
        drawing.labels.append(Label(x + 14, 34, name, 11))
        x += 24 + 7 * len(name)


def _node_boxes(runs: Sequence[Run], y: float, scale: float, shades: dict[str, str]) -> Iterator[Box]:
    """Runs of one node over each other, the pipeline's work on top."""
    for run in sorted(runs, key=lambda one: one.kind != "selfplay"):
        plays = run.kind == "selfplay"
        colour = shades.get(run.lane, "#999999") if plays else KINDS.get(run.kind, "#555555")
        height = ROW - 2 if plays else (ROW - 2) * 0.6
        title = f"{run.node}: {run.kind} of {run.lane}, {run.ended - run.began:.0f} s{', wasted' if run.wasted else ''}"
        width = max(0.3, (run.ended - run.began) * scale - 0.3)
        yield Box(LEFT + run.began * scale, y, width, height, GONE if run.wasted else colour, title)


def _lane_band(
    drawing: Drawing, cluster: Cluster, lane: str, runs: Sequence[Run], y: int, scale: float, colour: str
) -> int:  # fmt: skip
    """Seats over time, promotions as strokes with the candidate's true Elo, back-pressure as a line below."""
    height, slots = 44, 280
    now = max(cluster.timeline.now, 1.0)
    step, seats = now / slots, [0.0] * slots
    for run in runs:
        if run.lane == lane and run.kind == "selfplay":
            for slot in range(int(run.began / step), min(slots - 1, int(run.ended / step)) + 1):
                inside = min(run.ended, (slot + 1) * step) - max(run.began, slot * step)
                seats[slot] += max(0.0, inside) / step
    most = max(1.0, *seats)
    drawing.labels += [Label(10, y + 12, lane, 12), Label(10, y + 28, f"{most:.0f} seats", 9)]
    drawing.boxes.append(Box(LEFT, y, WIDTH - LEFT - 20, height, PALE))
    for slot, value in enumerate(seats):
        tall = height * value / most
        box = Box(
            LEFT + slot * step * scale, y + height - tall, step * scale, tall, colour, f"{lane}: {value:.1f} seats"
        )
        drawing.boxes.append(box)
    promoted = [(at, model) for at, name, _, model in cluster.chronicle.promotions if name == lane]
    labelled = -1e9
    for at, model in promoted:
        x, elo = LEFT + at * scale, cluster.strengths.of(model)
        drawing.boxes.append(Box(x, y - 3, 1.5, height + 3, INK, f"{lane}: promoted, true Elo {elo:.0f}"))
        if x - labelled > 46:
            drawing.labels.append(Label(x + 3, y - 14, f"{elo:+.0f}", 9))
            labelled = x
    for at, name, queue, level in cluster.chronicle.pressures:
        if name == lane and level != "none":
            drawing.boxes.append(Box(LEFT + at * scale, y + height + 1, 3, 4, "#d35400", f"{queue}: {level}"))
    return y + height + GAP


def _axis(drawing: Drawing, now: float, y: int, scale: float) -> None:
    step = next((one for one in (60, 300, 600, 1_800, 3_600, 14_400, 43_200, 86_400) if now / one <= 14), 604_800)
    for number in range(int(now // step) + 1):
        x, seconds = LEFT + number * step * scale, number * step
        drawing.boxes.append(Box(x, y - 4, 1, 6, INK))
        text = (
            f"{seconds / 86_400:g} d"
            if step >= 43_200
            else f"{seconds / 3_600:g} h"
            if step >= 1_800
            else f"{seconds / 60:g} min"
        )
        drawing.labels.append(Label(x - 6, y + 6, text, 10))


def as_html(drawing: Drawing, title: str) -> str:
    """One file that needs nothing else; what a box is appears under the pointer."""
    parts = [
        f'<rect x="{box.x:.2f}" y="{box.y:.1f}" width="{box.width:.2f}" height="{box.height:.1f}" fill="{box.colour}">'
        + (f"<title>{html.escape(box.title)}</title>" if box.title else "") + "</rect>"
        for box in drawing.boxes
    ]  # fmt: skip
    parts += [
        f'<text x="{one.x:.1f}" y="{one.y + one.size:.1f}" font-size="{one.size}">{html.escape(one.text)}</text>'
        for one in drawing.labels
    ]
    body = "\n".join(parts)
    return (
        f'<!doctype html><meta charset="utf-8"><title>{html.escape(title)}</title>\n'
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{drawing.height}" '
        f'font-family="sans-serif" fill="{INK}">\n{body}\n</svg>\n'
    )


def write_png(drawing: Drawing, file: Path) -> None:
    """Raises BadInput without Pillow."""
    try:
        from PIL import Image, ImageDraw, ImageFont
    except ImportError as error:
        raise BadInput(f"{file}: PNGs need Pillow; install sparring[pictures], or open the HTML beside it") from error
    image = Image.new("RGB", (WIDTH, drawing.height), PAPER)
    pen = ImageDraw.Draw(image)
    for box in drawing.boxes:
        if box.height >= 0.5:
            pen.rectangle((box.x, box.y, max(box.x, box.x + box.width), box.y + box.height), fill=box.colour)
    for one in drawing.labels:
        pen.text((one.x, one.y), one.text, fill=INK, font=ImageFont.load_default(one.size))
    image.save(file)


def write(cluster: Cluster, summary: dict[str, Any], folder: Path, name: str) -> tuple[Path, Path]:
    """Both pictures; returns their files."""
    folder.mkdir(parents=True, exist_ok=True)
    drawing = draw(cluster, summary)
    page, image = folder / f"{name}.html", folder / f"{name}.png"
    page.write_text(as_html(drawing, _headline(summary)))
    write_png(drawing, image)
    return image, page
