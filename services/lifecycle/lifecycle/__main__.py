"""Runs the service `lifecycle`."""

from lifecycle.app import SERVICE
from sparring.shell import run


def main() -> None:
    run(SERVICE)


if __name__ == "__main__":
    main()
