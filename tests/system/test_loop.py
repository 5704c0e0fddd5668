"""The whole loop over real processes: to a promotion, through kills of every service, across restarts."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import cluster

from sparring.contracts.lifecycle import ModelPromoted
from sparring.contracts.sync import BatchAdmitted
from sparring.invariants import violations

SERVICES = ("health", "lifecycle", "pipeline", "selfplay_orch", "sync", "training_slots")


async def test_the_loop_closes_and_goes_on_from_the_log(tmp_path: Path) -> None:
    with cluster.up(tmp_path, "--once", "2") as one:
        assert one.wait() == 0, one.text
    assert "Promotions" in one.text
    first = await cluster.facts_of(one.data)
    assert violations(first) == []
    assert {f.fact.lane for f in first if isinstance(f.fact, ModelPromoted)}
    for file in [*one.data.rglob("*.duckdb"), *one.data.rglob("picture.json")]:
        file.unlink()
    shutil.rmtree(tmp_path / "cache", ignore_errors=True)
    with cluster.up(tmp_path, "--once", "1") as again:
        cluster.wait_for(lambda: "services" in again.spar("services", "--json", check=False))
        shown = json.loads(again.spar("models", "--json"))
        assert {m["model"] for m in shown["models"]} >= {
            f.fact.model for f in first if isinstance(f.fact, ModelPromoted)
        }
        assert again.wait() == 0, again.text
    both = await cluster.facts_of(one.data)
    assert both[: len(first)] == first
    assert violations(both) == []


async def test_every_process_is_killed_once_and_nothing_is_lost_or_doubled(tmp_path: Path) -> None:
    with cluster.up(tmp_path, "--once", "6") as one:
        cluster.wait_for(lambda: "log" in one.text and "a_2p-1" in one.text)
        for module in (*SERVICES, "node_agent"):
            cluster.wait_for(lambda module=module: one.pid_of(module))
            os.kill(one.pid_of(module), signal.SIGKILL)
        balance = json.loads(one.spar("data", "--json"))
        assert balance["balanced"]
        assert one.wait(200) == 0, one.text
    facts = await cluster.facts_of(one.data)
    assert violations(facts) == []
    promoted = [f for f in facts if isinstance(f.fact, ModelPromoted)]
    assert len(promoted) >= 6
    admitted = [f.fact.batch for f in facts if isinstance(f.fact, BatchAdmitted)]
    assert len(admitted) == len(set(admitted))


def test_a_second_up_on_the_same_folder_is_refused_with_its_remedy(tmp_path: Path) -> None:
    with cluster.up(tmp_path) as one:
        cluster.wait_for(lambda: "server nats" in one.text)
        second = cluster.Up(tmp_path)
        assert second.wait(30) == 2
        cluster.wait_for(lambda: "in use by another" in one.text)


def test_a_lane_file_with_a_mistake_names_lane_field_and_value(tmp_path: Path) -> None:
    (tmp_path / "lanes.toml").write_text(cluster.lane("a_2p").replace("pairs_per_task = 40", "pairs_per_task = -1"))
    one = cluster.Up(tmp_path)
    assert one.wait(30) == 2
    assert "lane a_2p" in one.text
    assert "pairs_per_task = -1" in one.text
