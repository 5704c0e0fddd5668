"""No process is left behind, no limit is passed, no right outlives its deadline: programs that do their worst."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from agent_node import Node, alive, children

from node_agent.limits import Cgroups, Limits, Places
from sparring.contracts.node_agent import HaltNode
from sparring.contracts.selfplay_orch import ReportTaskFailed, ReportTaskFinished
from sparring.testing import eventually

STUBBORN = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
child = subprocess.Popen([sys.executable, "-c", deaf], start_new_session=True)
open(os.path.dirname(os.path.abspath(__file__)) + "/pids", "w").write(str(child.pid))
time.sleep(600)
"""
LEAVES_ONE = """
import json, os, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
open(os.path.dirname(os.path.abspath(__file__)) + "/pids", "w").write(str(child.pid))
print(json.dumps({"result": {"files": [], "evidence": {"steps": 1}}}), flush=True)
"""
GREEDY = "x = bytearray(2 * 1024 ** 3)"
WHERE = """
import json, os
print(json.dumps({"result": {"files": [], "evidence": {"cores": len(os.sched_getaffinity(0))}}}))
"""

RANKED = """
import json, os, time
own = rank = os.nice(0)
if os.path.exists("/proc/self/autogroup"):
    rank = None
    while rank != own:
        rank = int(open("/proc/self/autogroup").read().rpartition(" ")[2])
        time.sleep(.05)
print(json.dumps({"result": {"files": [], "evidence": {"own": own, "rank": rank}}}))
"""


async def escaped(node: Node) -> psutil.Process:
    """The program's child that went into a session of its own."""
    file = node.folder / "pids"
    pid = await eventually(lambda: file.exists() and file.read_text(), within_s=30)
    return psutil.Process(int(str(pid)))


async def test_halt_reaches_a_child_that_ignores_sigterm_in_a_session_of_its_own(node: Node) -> None:
    await node.run(STUBBORN, timeout_s=600)
    away = await escaped(node)
    family = [*children(node), away]
    await node.order(HaltNode(node="n1", reason="test"), "halt")
    await eventually(lambda: not any(alive(one) for one in family), within_s=10)
    assert "halted" in (await node.hears(ReportTaskFailed)).reason


async def test_what_a_finished_program_left_running_ends_with_its_task(node: Node) -> None:
    await node.run(LEAVES_ONE, kind="train", timeout_s=600)
    away = await escaped(node)
    assert (await node.hears(ReportTaskFinished)).evidence == {"steps": 1}
    await eventually(lambda: not alive(away), within_s=10)


async def test_the_next_life_of_a_killed_agent_finds_what_still_runs_and_ends_it(node: Node) -> None:
    await node.run(STUBBORN, timeout_s=600)
    away = await escaped(node)
    assert node.process is not None
    os.kill(node.process.pid, signal.SIGKILL)
    node.process.wait()
    assert alive(away), "it is in a session of its own: nobody but the next life ends it"
    node.start()
    await eventually(lambda: not alive(away), within_s=20)
    assert "ended what still ran" in (await node.hears(ReportTaskFailed)).reason


async def test_a_memory_limit_ends_the_program_and_the_reason_says_by_what(node: Node) -> None:
    await node.run(GREEDY, memory_bytes=500 * 1024**2)
    assert "over its memory limit of 524288000 bytes (rlimit)" in (await node.hears(ReportTaskFailed)).reason


async def test_a_task_runs_on_the_cores_that_it_was_given(idle: Node) -> None:
    idle.more = ("--cores-per-task", "1")
    idle.start()
    await idle.run(WHERE, kind="train")
    assert (await idle.hears(ReportTaskFinished)).evidence == {"cores": 1}


async def test_a_task_gives_way_also_where_cores_are_shared_by_session(node: Node) -> None:
    await node.run(RANKED, kind="train", timeout_s=20)
    nice = min(19, os.nice(0) + 10)
    assert (await node.hears(ReportTaskFinished)).evidence == {"own": nice, "rank": nice}


def test_cards_and_cores_are_spread_and_a_task_without_gpu_sees_no_card() -> None:
    places = Places(cores=(0, 1, 2, 3), cards=2, cores_per_task=2)
    with places.taken(gpu=True) as first, places.taken(gpu=True) as second, places.taken(gpu=False) as third:
        assert (first, second) == (((0, 1), (0,)), ((2, 3), (1,)))
        assert third[1] == ()
    assert Limits(cards=(1,)).environ == {"CUDA_VISIBLE_DEVICES": "1"}
    assert Limits(cards=()).environ == {"CUDA_VISIBLE_DEVICES": ""}
    with places.taken(gpu=True) as again:
        assert again == ((0, 1), (0,)), "what ended is free again"


def test_a_machine_whose_cards_are_unknown_hides_none() -> None:
    with Places(cores=(0,), cards=0).taken(gpu=False) as (cores, cards):
        assert (cores, cards) == ((), None)
    assert Limits(cards=None).environ == {}


def test_memory_is_limited_by_a_delegated_cgroup_where_there_is_one(tmp_path: Path) -> None:
    assert not Cgroups(None, "n1").usable
    (tmp_path / "cgroup.controllers").write_text("cpu pids")
    assert not Cgroups(tmp_path, "n1").usable, "no memory controller: rlimit it is"
    (tmp_path / "cgroup.controllers").write_text("cpu memory pids")
    cgroups = Cgroups(tmp_path, "n1")
    made = cgroups.make("t-1", 1024)
    assert made is not None
    assert (made / "memory.max").read_text() == "1024"
    assert Limits(memory_bytes=1024, cgroup=made).memory_by == "cgroup"
    (made / "memory.events").write_text("oom 1\noom_kill 1\n")
    assert Limits(memory_bytes=1024, cgroup=made).exceeded()
    assert cgroups.make("t-2", 0) is None, "no limit, no cgroup"


@pytest.fixture
def real_cgroup() -> Iterator[Path]:
    """A folder in the machine's own cgroup v2 hierarchy."""
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines() if line.split()[2] == "cgroup2"]
    for mount in mounts:
        folder = Path(mount) / f"sparring-test-{os.getpid()}"
        with contextlib.suppress(OSError):
            folder.mkdir()
            break
    else:
        pytest.skip("nobody may make cgroups here")
    yield folder
    folder.rmdir()


def within(cgroup: Path) -> subprocess.Popen[bytes]:
    """Somebody with a lot of memory to give back before the cgroup is empty; it carries no mark and leads a session."""
    cgroup.mkdir()
    code = "x = bytearray(2 ** 28); print(flush=True); import time; time.sleep(600)"
    one = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True,
                           preexec_fn=lambda: (cgroup / "cgroup.procs").write_text("0"))  # fmt: skip
    assert one.stdout is not None and one.stdout.readline()
    return one


def test_a_cgroup_goes_with_whoever_is_still_in_it(real_cgroup: Path) -> None:
    left = within(real_cgroup / "n1.t-1")
    assert Cgroups(None, "n1").drop(real_cgroup / "n1.t-1")
    assert not (real_cgroup / "n1.t-1").exists()
    assert left.wait(5) == -signal.SIGKILL


def test_the_cgroups_of_an_earlier_life_go_and_another_nodes_stay(real_cgroup: Path) -> None:
    mine, other = within(real_cgroup / "n1.t-1"), within(real_cgroup / "n10.t-1")
    Cgroups(real_cgroup, "n1").drop_leftovers()
    assert mine.wait(5) == -signal.SIGKILL
    assert [one.name for one in real_cgroup.iterdir() if one.is_dir()] == ["n10.t-1"]
    assert other.poll() is None
    Cgroups(real_cgroup, "n10").drop_leftovers()
    assert other.wait(5) == -signal.SIGKILL
