"""Training: Adam on the policy's cross entropy and the value's squared error."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sparring_hex.network import Network
from sparring_hex.rules import Floats, Ints
from sparring_hex.shards import Data

FIRST_MOMENT, SECOND_MOMENT, TINY = 0.9, 0.999, 1e-8
HELD_OUT = 20
SAMPLE = 4096
Rotation = tuple[Ints, Ints] | None


@dataclass(frozen=True)
class Losses:
    """Means over positions, without the L2 term."""

    policy: float
    value: float

    @property
    def both(self) -> float:
        """The loss that training lowers."""
        return self.policy + self.value


@dataclass(frozen=True)
class Recipe:
    """How a network learns; `value_mix` is the search's share of the value target, the outcome has the rest."""

    lr: float
    l2: float
    batch_size: int
    value_mix: float
    seed: int

    def targets(self, data: Data) -> Floats:
        """The values to learn, for the player to move."""
        return np.asarray(self.value_mix * data.search_value + (1 - self.value_mix) * data.value, np.float32)


def split(data: Data) -> tuple[Data, Data]:
    """Training and held-out positions: one game in 20, by its content, so that it stays held out in every window."""
    out = data.game % HELD_OUT == 0
    return data.rows(~out), data.rows(out)


def sample(data: Data, seed: int) -> Data:
    """At most 4,096 positions to measure losses on, the same for the same seed."""
    if len(data) <= SAMPLE:
        return data
    return data.rows(np.sort(np.random.default_rng(seed).permutation(len(data))[:SAMPLE]))


def losses(network: Network, data: Data, recipe: Recipe) -> Losses:
    """The network's losses on all positions of `data`."""
    chance, value = network.judge(data.planes, data.legal)
    cross = -(data.policy * np.log(np.maximum(chance, 1e-12))).sum(axis=1)
    square = (value - recipe.targets(data)) ** 2
    share = data.weight / data.weight.sum()
    return Losses(float((cross * share).sum()), float((square * share).sum()))


class Trainer:
    """A network, its optimiser, and the number of steps done. Step n of a seed draws the same positions always."""

    def __init__(self, network: Network, data: Data, recipe: Recipe, rotation: Rotation) -> None:
        self.network, self.data, self.recipe, self.rotation = network, data, recipe, rotation
        self.targets = recipe.targets(data)
        self.first = np.zeros_like(network.weights)
        self.second = np.zeros_like(network.weights)
        self.steps = 0
        self._gradient = np.zeros_like(network.weights)
        self._parts = network.views(self._gradient)

    def step(self) -> None:
        """One step of Adam on one batch, each position turned with even chance where the game allows it."""
        self._descend(*self._batch())
        self.steps += 1
        gradient, weights = self._gradient, self.network.weights
        gradient += self.recipe.l2 * weights
        self.first += (1 - FIRST_MOMENT) * (gradient - self.first)
        self.second += (1 - SECOND_MOMENT) * (gradient * gradient - self.second)
        rate = self.recipe.lr * np.sqrt(1 - SECOND_MOMENT**self.steps) / (1 - FIRST_MOMENT**self.steps)
        weights -= np.float32(rate) * self.first / (np.sqrt(self.second) + np.float32(TINY))

    def _batch(self) -> tuple[Data, Floats]:
        rng = np.random.default_rng([self.recipe.seed, self.steps])
        chosen = rng.integers(len(self.data), size=self.recipe.batch_size)
        batch = self.data.rows(chosen)
        if self.rotation is not None:
            features, actions = self.rotation
            turned = np.flatnonzero(rng.random(len(chosen)) < 0.5)
            batch.planes[turned] = batch.planes[turned][:, features]
            batch.policy[turned] = batch.policy[turned][:, actions]
            batch.legal[turned] = batch.legal[turned][:, actions]
        return batch, self.targets[chosen]

    def _descend(self, batch: Data, targets: Floats) -> None:
        """Fills the gradient of one batch."""
        seen = self.network.trace(batch.planes, batch.legal)
        share = (batch.weight / batch.weight.sum()).astype(np.float32)
        to_chance = (seen.chance * batch.policy.sum(axis=1, keepdims=True) - batch.policy) * share[:, None]
        to_value = 2 * (seen.value - targets) * (1 - seen.value**2) * share
        self.network.gradient(seen, to_chance, to_value, self._parts)
