"""The command line `spar`."""


def main() -> None:
    """Runs `spar`."""
