"""A node that is cut off for as long as the nightly command wants: the loop goes on without it, and nothing it made is lost."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import cluster

from sparring.contracts.health import NodeLost
from sparring.contracts.lifecycle import ModelPromoted
from sparring.contracts.selfplay_orch import TaskOrphaned
from sparring.contracts.sync import BatchAdmitted, GamesRecorded
from sparring.invariants import violations
from sparring.testing.proxy import Proxy

# beyond the node's loss: an hour in the nightly command
CUT_S = float(os.environ.get("SPARRING_PARTITION_S", "0"))
# longer than it takes to see that it runs and to cut it off
TASK_S = 15.0


async def test_a_node_that_was_cut_off_past_its_loss_loses_no_game_and_the_loop_went_on(tmp_path: Path) -> None:
    (tmp_path / "lanes.toml").write_text(cluster.lane("a_2p", TASK_S) + cluster.lane("b_2p", 0.2))

    def far() -> dict[str, Any]:
        nodes = json.loads(one.spar("nodes", "--json", check=False) or '{"nodes": []}')["nodes"]
        return next((node for node in nodes if node["node"] == "far"), {})

    def promotions() -> int:
        return sum(row["promotions"] for row in json.loads(one.spar("status", "--json"))["lanes"])

    with cluster.up(tmp_path, "--agents", "2") as one:
        one.ready()
        with (
            Proxy(one.url) as proxy,
            cluster.agent(proxy.url, tmp_path, "far", "--kinds", "selfplay", "--seats", "2") as agent,
        ):
            cluster.wait_for(lambda: any((tmp_path / "far" / "work").glob("a_2p-s*")))
            proxy.cut()
            cluster.wait_for(lambda: far().get("state") == "lost", 90)
            before, end = promotions(), time.monotonic() + CUT_S
            cluster.wait_for(lambda: promotions() > before and time.monotonic() > end, CUT_S + 120)
            assert agent.poll() is None
            games = tmp_path / "far" / "games"
            kept = sorted(path.name for path in games.glob("[!.]*"))
            assert kept, "what it had finished by itself waits on its disk"
            proxy.heal()
            cluster.wait_for(lambda: far().get("state") == "healthy" and not any(games.iterdir()), 120)
            agent.terminate()
            agent.wait(60)
        balance = json.loads(one.spar("data", "--json"))
        assert balance["balanced"] and not any(lane["lost"] for lane in balance["lanes"])
        assert json.loads(one.spar("dlq", "ls", "--json"))["letters"] == []
    log = await cluster.facts_of(one.data)
    assert violations(log) == []
    facts = [record.fact for record in log]
    assert [fact.reason for fact in facts if isinstance(fact, NodeLost) and fact.node == "far"] == ["silent"]
    orphaned = {fact.task for fact in facts if isinstance(fact, TaskOrphaned) and fact.node == "far"}
    assert orphaned
    played = [fact.batch for fact in facts if isinstance(fact, GamesRecorded) and fact.batch in kept]
    admitted = [fact.batch for fact in facts if isinstance(fact, BatchAdmitted) and fact.batch in kept]
    assert sorted(played) == sorted(admitted) == kept, "each batch that it kept is recorded and admitted, once"
    assert any(isinstance(fact, ModelPromoted) for fact in facts)
