"""Runs the agent of this node."""

from __future__ import annotations

import asyncio
import sys

from node_agent.agent import Agent
from node_agent.settings import parse
from sparring.errors import BadInput


async def _run(argv: list[str] | None) -> int:
    return await Agent(parse(argv)).run()


def main() -> None:
    """Exit code 2 for bad input, 1 when the connection is gone for good."""
    try:
        parse()
    except BadInput as error:
        print(f"spar agent: {error}", file=sys.stderr)
        sys.exit(2)
    sys.exit(asyncio.run(_run(None)))


if __name__ == "__main__":
    main()
