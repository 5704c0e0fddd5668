"""Runs the service `training-slots`."""

from sparring.shell import run
from training_slots.app import SERVICE


def main() -> None:
    run(SERVICE)


if __name__ == "__main__":
    main()
