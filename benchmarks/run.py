"""Runs the benchmarks and writes the results page: `uv run python benchmarks/run.py [--only NAME]… [--list] [--page]`.

A benchmark is a module in this folder with `def rows() -> list[Row]` (see `rows.py`). The first line of its docstring is
its title; `NAME.md` beside it, if there is one, says why a target is not met and what was tried. Each runs in a process
of its own; its rows go to `results/NAME.json`, and `README.md` is made of all results there are.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

HERE = Path(__file__).parent
RESULTS = HERE / "results"
HEAD = """\
<!-- made by benchmarks/run.py: run it instead of editing this page -->
# Benchmarks

Every figure stands beside the limit that was taken in the same run on the same machine: a ratio travels, a rate does not.
`uv run python benchmarks/run.py` measures all of it again and writes this page; `--only NAME` measures one part.
"""


def names() -> list[str]:
    """The modules here that have `rows()`."""
    found = []
    for path in sorted(HERE.glob("*.py")):
        tree = ast.parse(path.read_text())
        if any(isinstance(node, ast.FunctionDef) and node.name == "rows" for node in tree.body):
            found.append(path.stem)
    return found


def measure(name: str) -> None:
    """Runs one benchmark in this process and writes down its rows."""
    began = time.perf_counter()
    rows = importlib.import_module(name).rows()
    RESULTS.mkdir(exist_ok=True)
    result = {
        "cores": os.cpu_count(),
        "seconds": round(time.perf_counter() - began),
        "rows": [asdict(row) for row in rows],
    }
    (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")


def number(value: float | None) -> str:
    if value is None:
        return ""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def page() -> str:
    parts = [HEAD]
    for name in names():
        file = RESULTS / f"{name}.json"
        if not file.exists():
            continue
        result = json.loads(file.read_text())
        title = (ast.get_docstring(ast.parse((HERE / f"{name}.py").read_text())) or name).splitlines()[0].rstrip(".:")
        parts.append(f"\n## {title}\n\n`--only {name}`, {result['seconds']} s on {result['cores']} cores.\n")
        parts.append("| | figure | beside | ratio | target | met |\n|---|---:|---:|---:|---|---|")
        parts += [line(row) for row in result["rows"]]
        notes = HERE / f"{name}.md"
        if notes.exists():
            parts.append("\n" + notes.read_text().rstrip())
    return "\n".join(parts) + "\n"


def line(row: dict) -> str:  # type: ignore[type-arg]
    beside = f"{row['beside']}: {number(row['reference'])} {row['unit']}" if row["reference"] is not None else ""
    met = {True: "yes", False: "**no**", None: ""}[row["met"]]
    figure = f"{number(row['figure'])} {row['unit']}"
    return f"| {row['name']} | {figure} | {beside} | {number(row['ratio'])} | {row['target']} | {met} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", action="append", default=[], choices=names(), help="one benchmark; may be repeated")
    parser.add_argument("--list", action="store_true", help="say which there are")
    parser.add_argument("--page", action="store_true", help="only write the page from the results that are there")
    parser.add_argument("--here", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.list:
        print("\n".join(names()))
        return
    if asked.here:
        measure(asked.here)
        return
    failed = []
    for name in [] if asked.page else asked.only or names():
        print(f"== {name}", flush=True)
        if subprocess.run([sys.executable, __file__, "--here", name]).returncode:
            failed.append(name)
            continue
        for row in json.loads((RESULTS / f"{name}.json").read_text())["rows"]:
            print(line(row), flush=True)
    (HERE / "README.md").write_text(page())
    if failed:
        sys.exit(f"no figures of: {', '.join(failed)}")


if __name__ == "__main__":
    main()
