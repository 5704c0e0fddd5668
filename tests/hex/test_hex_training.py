"""Training: it learns, it resumes as if it had never stopped, and it refuses data without targets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sparring_hex.job import BadJob, Refused, read_job
from sparring_hex.network import Network
from sparring_hex.program import Desk, sha256
from sparring_hex.rules import Rules
from sparring_hex.shards import Data, load_shard, save_shard
from sparring_hex.train import train
from sparring_hex.training import Recipe, Trainer, losses

Do = Callable[..., tuple[Path, dict[str, Any]]]


@pytest.fixture
def shard(do: Do) -> Path:
    batch, _ = do("selfplay", {"games": 96}, params={"simulations": 24})
    path: Path = do("export", {}, batches=[batch])[0]
    return path


def test_training_lowers_the_losses(do: Do, shard: Path) -> None:
    _, evidence = do("train", {"steps": 60}, shards=[shard])
    assert evidence["steps"] == 60
    policy = load_shard(shard).policy  # its entropy is the least that a policy loss can be
    floor = float(-(policy * np.log(np.maximum(policy, 1e-12))).sum(axis=1).mean())
    assert floor < evidence["policy_loss_after"]
    assert evidence["policy_loss_after"] - floor < 0.9 * (evidence["policy_loss_before"] - floor)
    assert evidence["value_loss_after"] < 0.7 * evidence["value_loss_before"]
    assert evidence["heldout_value_loss"] < evidence["value_loss_before"]


def test_the_same_job_trains_the_same_model(do: Do, shard: Path) -> None:
    one, _ = do("train", {"steps": 5}, shards=[shard], out="a")
    same, _ = do("train", {"steps": 5}, shards=[shard], out="b")
    assert sha256(one) == sha256(same)


def test_resumed_training_equals_uninterrupted_training(do: Do, shard: Path, tmp_path: Path) -> None:
    whole, told = do("train", {"steps": 30}, shards=[shard], out="whole")
    desk = Desk(tmp_path / "half", quiet=True)

    class StopsAfterTwelve(Desk):
        def progress(self, done: int, *_: object, **__: object) -> None:
            self.stopping = done >= 12

    job = {"seed": 1, "lane": "hex3_2p", "game": "hex", "game_params": {"board_size": 3}, "work": {"steps": 30},
           "params": {"width": 32}, "inputs": {"shards": [str(shard)]}}  # fmt: skip
    outcome = train(read_job(job, "train"), StopsAfterTwelve(desk.out, quiet=True))
    assert outcome.evidence["steps"] == 12 < outcome.evidence["wanted"]
    assert [file["role"] for file in outcome.files] == ["model", "checkpoint"]
    resumed, again = do("train", {"steps": 30}, shards=[shard], checkpoint=desk.out / "checkpoint.npz", out="resumed")
    assert sha256(resumed) == sha256(whole)
    assert again["loss_after"] == told["loss_after"]


def test_steps_follow_from_the_uses_of_each_new_position(do: Do, shard: Path) -> None:
    _, evidence = do("train", {"steps": None, "new_positions": 100}, params={"batch_size": 64}, shards=[shard])
    assert evidence["steps"] == 50
    _, capped = do("train", {"new_positions": 100, "max_steps": 7}, params={"batch_size": 64}, shards=[shard])
    assert capped["steps"] == 7


def test_data_without_policy_targets_are_refused(do: Do, shard: Path, tmp_path: Path) -> None:
    data = load_shard(shard)
    data.policy[: len(data) // 50] = 0
    save_shard(tmp_path / "gaps.npz", data)
    with pytest.raises(Refused, match=r"policy coverage 0\.98.* 0\.99 is the least"):
        do("train", {"steps": 1}, shards=[tmp_path / "gaps.npz"])


def test_a_model_of_another_width_is_its_own_and_one_of_another_board_is_refused(do: Do, shard: Path) -> None:
    model, _ = do("train", {"steps": 1}, shards=[shard])
    _, evidence = do("evaluate", {"pairs": 1, "openings_seed": 1}, params={"width": 64}, candidate=model)
    assert evidence["pairs"] == 1
    job = {"seed": 1, "game": "hex", "game_params": {"board_size": 4}, "work": {"steps": 1},
           "inputs": {"shards": [str(shard)], "parent": str(model)}}  # fmt: skip
    with pytest.raises(BadJob, match=r"inputs\.parent = .*name a model of the same lane"):
        train(read_job(job, "train"), Desk(model.parent, quiet=True))


def test_generation_0_is_the_same_everywhere_and_its_seed_matters(do: Do) -> None:
    one, _ = do("train", {"generation0": True}, seed=1, out="a")
    same, _ = do("train", {"generation0": True}, seed=2, out="b")
    other, _ = do("train", {"generation0": True}, params={"generation0_seed": 9}, out="c")
    weights = [np.load(path)["weights"] for path in (one, same, other)]
    assert (weights[0] == weights[1]).all()
    assert (weights[0] != weights[2]).any()


def test_the_gradient_is_the_slope_of_the_loss(shard: Path) -> None:
    data = load_shard(shard)
    whole = Data(**{name: np.asarray(value, float) if name in ("planes", "policy", "weight") else value
                    for name, value in vars(data).items()})  # fmt: skip
    weights: Any = np.zeros(Network(18, 9, 8).size)  # in float64 a difference quotient has digits left
    network = Network(18, 9, 8, weights)
    network.weights[:] = np.random.default_rng(3).standard_normal(network.size) * 0.3
    recipe = Recipe(lr=0.01, l2=0, batch_size=1, value_mix=0.5, seed=0)
    trainer = Trainer(network, whole, recipe, None)
    trainer._descend(whole, trainer.targets)
    slope, step = trainer._gradient, 1e-6
    for at in np.random.default_rng(4).integers(network.size, size=40).tolist():
        before = network.weights[at]
        network.weights[at] = before + step
        above = losses(network, whole, recipe).both
        network.weights[at] = before - step
        below = losses(network, whole, recipe).both
        network.weights[at] = before
        assert slope[at] == pytest.approx((above - below) / (2 * step), rel=1e-3, abs=1e-6)


def test_a_model_beats_random_play_and_generation_0_after_a_small_training(do: Do, shard: Path) -> None:
    params = {"simulations": 8, "opening_plies": 1}
    model, _ = do("train", {"steps": 150}, shards=[shard])
    _, random = do("evaluate", {"pairs": 5, "baseline_kind": "random"}, params=params, candidate=model)
    _, first = do("evaluate", {"pairs": 15, "simulations": 2, "opening_plies": 2}, candidate=model)
    assert random["score"] >= 0.8
    assert first["score"] >= 0.6


def test_a_turned_position_keeps_its_policy_on_legal_moves(shard: Path) -> None:
    recipe, rules = Recipe(lr=0.01, l2=0, batch_size=256, value_mix=0.5, seed=0), Rules("hex", {"board_size": 3})
    data, network = load_shard(shard), Network(rules.features, rules.actions, 8)
    straight, _ = Trainer(network, data, recipe, None)._batch()
    turned, _ = Trainer(network, data, recipe, rules.rotation())._batch()
    moved = (straight.planes != turned.planes).any(axis=1).sum()
    assert 64 < moved < 192, "about half of the batch is turned"
    assert not turned.policy[~turned.legal].any()
    assert (turned.legal == (turned.planes[:, :9] + turned.planes[:, 9:] == 0)).all()
