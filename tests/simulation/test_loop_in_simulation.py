"""The same cores as in production close the loop on virtual time, and a seed is a run."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys

from sparring.contracts.health import NodeJoined, NodeLost, NodeSuspected
from sparring.contracts.lifecycle import GateDecided, ModelPromoted
from sparring.contracts.pipeline import IterationClosed
from sparring.invariants import violations
from sparring.simulation import Cluster
from sparring.simulation.setup import COARSE, quick
from sparring.simulation.timeline import START

DIGEST = """
import hashlib
from sparring.simulation import Cluster
from sparring.simulation.setup import quick
cluster = Cluster(quick(7, nodes=4))
cluster.run(150)
print(cluster.ledger.end, hashlib.sha256(b"".join(cluster.ledger.lines())).hexdigest())
"""


def test_the_loop_closes_and_lanes_grow_stronger() -> None:
    cluster = Cluster(quick(1))
    cluster.run(400)
    facts = [one.fact for one in cluster.ledger.facts]
    promoted = [fact for fact in facts if isinstance(fact, ModelPromoted)]
    assert {fact.lane for fact in promoted} == {"alpha", "beta"}
    assert any(isinstance(fact, IterationClosed) and fact.outcome == "promoted" for fact in facts)
    assert cluster.strengths.of(promoted[-1].model) > 50
    assert violations(cluster.ledger.facts) == []


def test_a_gate_passes_what_is_stronger_and_rejects_what_is_weaker() -> None:
    cluster = Cluster(quick(4))
    cluster.run(700)
    decided = [one.fact for one in cluster.ledger.facts if isinstance(one.fact, GateDecided)]
    gains = {
        verdict: [
            cluster.strengths.of(one.candidate) - cluster.strengths.of(one.baseline)
            for one in decided
            if one.verdict == verdict
        ]
        for verdict in ("passed", "rejected")
    }
    assert gains["passed"] and gains["rejected"]
    assert sum(gains["passed"]) / len(gains["passed"]) > sum(gains["rejected"]) / len(gains["rejected"])


def test_the_same_seed_gives_the_same_log_byte_for_byte() -> None:
    """In other processes too, with other hash seeds: nothing hangs on the order of a set."""
    found = {
        subprocess.run(
            [sys.executable, "-c", DIGEST], env=os.environ | {"PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(found) == 1
    other = Cluster(quick(8, nodes=4))
    other.run(150)
    assert hashlib.sha256(b"".join(other.ledger.lines())).hexdigest() not in found.pop().decode()


def test_a_log_that_is_not_kept_holds_what_is_not_read_yet_and_changes_nothing() -> None:
    kept, dropped = Cluster(quick(1, watched=False)), Cluster(quick(1, watched=False, keep_log=False))
    longest = 0
    for _ in range(30):
        kept.run(20)
        dropped.run(20)
        longest = max(longest, len(dropped.ledger.facts))
    assert dropped.ledger.end == kept.ledger.end == len(kept.ledger.facts) > 4_000
    assert longest < 2_000


def test_a_coarse_pace_notices_a_dead_node_as_early_as_the_clock_of_production() -> None:
    """Health looks every 31 s then; that a node is heard, suspected and lost is looked for when it can be."""
    cluster = Cluster(quick(nodes=4, pace=COARSE))
    cluster.run(70)
    agent = cluster.agents["n2"]
    joined = [one for one in cluster.ledger.facts if isinstance(one.fact, NodeJoined) and one.fact.node == "n2"]
    assert (joined[0].at - START).total_seconds() - agent.boot_at < 2
    agent.die(disk_lost=False)
    cluster.run(30)
    noticed = {type(one.fact): (one.at - START).total_seconds() - agent.gone_at
               for one in cluster.ledger.facts if isinstance(one.fact, NodeSuspected | NodeLost)}  # fmt: skip
    assert 5 <= noticed[NodeSuspected] <= 12
    assert 15 <= noticed[NodeLost] <= 27
