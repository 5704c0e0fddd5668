"""What a simulated task leaves behind: files by hash and the evidence that its owner asks for."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from sparring.contracts.node_agent import StartTask
from sparring.contracts.parts import Artifact, TaskSpec
from sparring.simulation.learning import pair_counts
from sparring.simulation.timeline import rng_of

if TYPE_CHECKING:
    from sparring.simulation.cluster import Cluster

SHARD_BYTES, MODEL_BYTES = 20_000_000, 5_000_000


def digest(*names: object) -> str:
    return hashlib.sha256("/".join(str(one) for one in names).encode()).hexdigest()


def games_of(spec: TaskSpec, share: float) -> int:
    """Whole games that are played when that share of the time has passed."""
    return int(max(1, int(spec.work.get("games", 1))) * min(1.0, share) + 1e-9)


def result_of(cluster: Cluster, order: StartTask, share: float) -> tuple[list[Artifact], dict[str, Any]]:
    """Files and evidence of a task that ran for that share of its time."""
    spec = order.spec
    match spec.kind:
        case "selfplay":
            return _games(cluster, order, share)
        case "export":
            return _shards(cluster, order)
        case "train":
            return _model(cluster, order)
        case "evaluate":
            return [], _match(cluster, order)
        case _:
            return [], {"done": 1}


def _games(cluster: Cluster, order: StartTask, share: float) -> tuple[list[Artifact], dict[str, Any]]:
    work, games = cluster.setup.work, games_of(order.spec, share)
    sha256 = digest("games", order.task, order.attempt, games)
    file = Artifact(name="games.bin", role="games", sha256=sha256, bytes=games * work.game_bytes)
    return [file], {"games": games, "positions": games * work.positions}


def _shards(cluster: Cluster, order: StartTask) -> tuple[list[Artifact], dict[str, Any]]:
    positions = int(order.spec.work.get("window_positions", 0)) or 1
    sha256 = digest("shard", order.task, order.attempt)
    url = cluster.store.put(sha256, SHARD_BYTES)
    shard = Artifact(name="shard-0.npz", role="shard", sha256=sha256, bytes=SHARD_BYTES, url=url)
    thin = rng_of(cluster.setup.seed, "thin", order.task, order.attempt).random() < cluster.setup.work.thin
    coverage = {"policy": 0.5 if thin else 1.0, "outcome": 1.0}
    return [shard], {"positions": positions, "coverage": coverage, "duplicates": 0.01}


def _model(cluster: Cluster, order: StartTask) -> tuple[list[Artifact], dict[str, Any]]:
    parents = order.spec.inputs.get("parent", ())
    parent = parents[0].sha256 if parents else ""
    rng = rng_of(cluster.setup.seed, "model", order.task, order.attempt)
    sha256 = cluster.strengths.train(parent, f"{order.task}-{order.attempt}", rng)
    url = cluster.store.put(sha256, MODEL_BYTES)
    return [Artifact(name="model.bin", role="model", sha256=sha256, bytes=MODEL_BYTES, url=url)], {"steps": 1_000}


def _match(cluster: Cluster, order: StartTask) -> dict[str, Any]:
    spec = order.spec
    baselines = spec.inputs.get("baseline", ())
    baseline = baselines[0].sha256 if baselines else ""
    pairs = max(1, int(spec.work.get("pairs", 1)))
    rng = rng_of(cluster.setup.seed, "match", order.task, order.attempt)
    difference = cluster.strengths.of(spec.model) - cluster.strengths.of(baseline)
    counts = pair_counts(difference, pairs, cluster.strengths.curve.draws, rng)
    return {"counts": list(counts), "games": 2 * pairs, "settings": {}}
