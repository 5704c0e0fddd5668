"""`spar agent`: this machine becomes a node."""

from __future__ import annotations

import runpy
import sys

import typer


def agent(context: typer.Context) -> None:
    """Runs the node agent here; see `spar agent --help`."""
    sys.argv = ["spar agent", *context.args]
    runpy.run_module("node_agent", run_name="__main__")
