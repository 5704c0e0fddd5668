"""`python -m sparring.cli` is `spar`."""

from sparring.cli import main

main()
