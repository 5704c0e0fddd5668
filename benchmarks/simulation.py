"""Speed of the simulator: virtual time that one core simulates with every service's own core."""

from __future__ import annotations

import gc
import os
import time

from rows import Row

from sparring.simulation import Cluster
from sparring.simulation.machines import Churn
from sparring.simulation.setup import COARSE, COARSE_SETTINGS, Setup, lanes_for

SHARE = float(os.environ.get("SPARRING_SIMULATION_SHARE", "1"))


def measured(nodes: int, seconds: float, churn: float) -> tuple[float, int]:
    """CPU seconds and finished tasks; one seat per node, tasks of about five minutes."""
    gc.collect()
    gc.disable()
    began = time.process_time()
    setup = Setup(nodes=nodes, seats=1, churn=Churn(churn), pace=COARSE, settings=COARSE_SETTINGS,
                  keep_log=False, watched=False, lanes=lanes_for(nodes))  # fmt: skip
    cluster = Cluster(setup)
    cluster.run(seconds * SHARE)
    took = time.process_time() - began
    gc.enable()
    return took, cluster.chronicle.counts["finished"]


def rows() -> list[Row]:
    found = []
    for name, nodes, seconds, churn, target in (
        ("50 nodes × 7 days, churn 30 % a day", 50, 7 * 86_400.0, 0.3, 60.0),
        ("10,000 nodes × 1 hour", 10_000, 3_600.0, 0.0, 120.0),
    ):
        took, tasks = measured(nodes, seconds, churn)
        found.append(Row(name, took, "s of one core", target=f"< {target:g} s", met=took < target * SHARE))
        found.append(Row(f"{name}: each of {tasks:,} tasks", 1000 * took / max(1, tasks), "ms"))
    return found
