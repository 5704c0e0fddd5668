"""Runs the service `sync`."""

from sparring.shell import run
from sync.app import SERVICE


def main() -> None:
    run(SERVICE)


if __name__ == "__main__":
    main()
