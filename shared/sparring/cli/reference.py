"""The reference of `spar`, generated from the commands themselves: `python -m sparring.cli.reference write | check`."""

from __future__ import annotations

import sys
from pathlib import Path

import typer
from typer.cli import get_docs_for_click

from sparring.cli.app import build

FILE = Path("shared/sparring/cli/README.md")


def text() -> str:
    """Every command with its arguments, options and defaults, as Markdown."""
    command = typer.main.get_command(build())
    return get_docs_for_click(obj=command, ctx=typer.Context(command, info_name="spar"), name="spar").strip() + "\n"


def main(action: str) -> int:
    """Exit code 0 when the file is current (or was written), 1 when it is not, 2 for an unknown action."""
    if action == "write":
        FILE.write_text(text())
        return 0
    if action != "check":
        print(f"ACTION = {action!r}: give write or check", file=sys.stderr)
        return 2
    if FILE.exists() and FILE.read_text() == text():
        return 0
    print(f"{FILE} is not current: run python -m sparring.cli.reference write", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else ""))
