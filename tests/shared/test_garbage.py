"""A process that knows much does not stand still to look for garbage, and loses none of its memory to it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from sparring.server import EmbeddedServer

# in a process of its own: what is frozen there stays frozen
KNOWS_MUCH = """
import gc, weakref
from sparring import garbage

class Node:
    pass

def cycle():
    one = Node()
    one.other = [one]
    return weakref.ref(one)

def looks():
    return gc.get_stats()[2]["collections"]

garbage.look_seldom()
known = [[number] for number in range(200_000)]
garbage.spare_what_is_there()
before = looks()
more = [[number] for number in range(400_000)]
print(looks() - before)
gone = [cycle() for _ in range(100_000)]
print(sum(one() is not None for one in gone) < 2 * garbage.YOUNGEST)
print(gc.get_freeze_count() > 200_000)
"""


def told(source: str, *arguments: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", source, *arguments], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout.split()


def test_what_comes_to_be_known_is_no_reason_to_look_at_everything_and_cyclic_garbage_is_found_while_it_is_young() -> (
    None
):
    looks, found, spared = told(KNOWS_MUCH)
    assert (looks, found, spared) == ("0", "True", "True")


SERVES = """
import asyncio, dataclasses, gc, sys
from sparring import garbage
from sparring.shell import run
from training_slots.app import SERVICE

async def looks(shell):
    await shell._unserved.wait()
    print(gc.get_threshold() == (garbage.YOUNGEST, garbage.MIDDLE, garbage.ALL), gc.get_freeze_count() > 10_000)
    shell.stopping.set()

run(dataclasses.replace(SERVICE, workers=[looks]), ["--nats", sys.argv[1], "--data", sys.argv[2]])
"""


def test_a_service_that_serves_spares_what_it_has_loaded(server: EmbeddedServer, tmp_path: Path) -> None:
    assert server.address is not None
    said = told(SERVES, server.address.url, str(tmp_path))
    assert said[-2:] == ["True", "True"]
