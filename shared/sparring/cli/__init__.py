"""The command line `spar`: one module per group of commands."""

from __future__ import annotations

import sys

from sparring.errors import BadInput, CannotAnswer, LogUnavailable, Permanent


def main() -> None:
    """Runs `spar`. Bad input: one sentence, exit code 2; no answer from the server: exit code 3;
    a question that nobody can answer, or a log that this build can't read: exit code 4."""
    from sparring.cli.app import build

    try:
        build()()
    except BadInput as error:
        print(f"spar: {error}", file=sys.stderr)
        sys.exit(2)
    except LogUnavailable as error:
        print(f"spar: the server does not answer: {error}", file=sys.stderr)
        sys.exit(3)
    except CannotAnswer as error:
        print(f"spar: {error}", file=sys.stderr)
        sys.exit(4)
    except Permanent as error:
        print(f"spar: {error}; `spar doctor` says more", file=sys.stderr)
        sys.exit(4)
