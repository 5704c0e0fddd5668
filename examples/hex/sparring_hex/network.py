"""The network: a residual perceptron with a policy and a value, its weights in one flat array."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sparring_hex.job import BadJob, Job
from sparring_hex.rules import Bools, Floats, Rules

VALUE_WIDTH = 32
IMPOSSIBLE = np.float32(-1e9)


@dataclass(frozen=True)
class Trace:
    """What the way back needs of the way forth."""

    planes: Floats
    entry: Floats
    middle: Floats
    body: Floats
    head: Floats
    chance: Floats
    value: Floats


class Network:
    """Planes [n, features] to chances of moves [n, actions] and values [n] in (-1, 1) for the player to move."""

    def __init__(self, features: int, actions: int, width: int, weights: Floats | None = None) -> None:
        self.features, self.actions, self.width = features, actions, width
        self.shapes: dict[str, tuple[int, ...]] = {
            "entry": (features, width), "entry_bias": (width,),
            "first": (width, width), "first_bias": (width,),
            "second": (width, width), "second_bias": (width,),
            "policy": (width, actions), "policy_bias": (actions,),
            "head": (width, VALUE_WIDTH), "head_bias": (VALUE_WIDTH,),
            "value": (VALUE_WIDTH,), "value_bias": (1,),
        }  # fmt: skip
        self.size = sum(int(np.prod(shape)) for shape in self.shapes.values())
        self.weights = np.zeros(self.size, np.float32) if weights is None else weights
        self.part = self.views(self.weights)

    def views(self, flat: Floats) -> dict[str, Floats]:
        """The named parts of a flat array of the network's size."""
        parts, at = {}, 0
        for name, shape in self.shapes.items():
            size = int(np.prod(shape))
            parts[name] = flat[at : at + size].reshape(shape)
            at += size
        return parts

    def draw(self, seed: int) -> None:
        """Draws fresh weights: He's scale inside, small heads, so that generation 0 has no opinion."""
        rng = np.random.default_rng(seed)
        for name, scale in (("entry", 2.0), ("first", 2.0), ("second", 0.5), ("policy", 0.01), ("head", 2.0)):
            part = self.part[name]
            part[:] = rng.standard_normal(part.shape) * np.sqrt(scale / part.shape[0])
        self.part["value"][:] = rng.standard_normal(VALUE_WIDTH) * 0.02

    def trace(self, planes: Floats, legal: Bools) -> Trace:
        """The way forth with everything on the way."""
        part = self.part
        entry = np.maximum(planes @ part["entry"] + part["entry_bias"], 0)
        middle = np.maximum(entry @ part["first"] + part["first_bias"], 0)
        body = np.maximum(entry + middle @ part["second"] + part["second_bias"], 0)
        logits = np.where(legal, body @ part["policy"] + part["policy_bias"], IMPOSSIBLE)
        logits -= logits.max(axis=1, keepdims=True)
        chance = np.exp(logits, out=logits)
        chance /= chance.sum(axis=1, keepdims=True)
        head = np.maximum(body @ part["head"] + part["head_bias"], 0)
        value = np.tanh(head @ part["value"] + part["value_bias"])
        return Trace(planes, entry, middle, body, head, chance, value)

    def judge(self, planes: Floats, legal: Bools) -> tuple[Floats, Floats]:
        """Chances [n, actions], 0 for illegal moves, and values [n] for the player to move."""
        seen = self.trace(planes, legal)
        return seen.chance, seen.value

    def gradient(self, seen: Trace, to_chance: Floats, to_value: Floats, into: dict[str, Floats]) -> None:
        """Fills `into` with the gradient, given it at the logits [n, actions] and before the tanh [n]."""
        part = self.part
        into["policy"][:], into["policy_bias"][:] = seen.body.T @ to_chance, to_chance.sum(axis=0)
        into["value"][:], into["value_bias"][:] = seen.head.T @ to_value, to_value.sum()
        to_head = np.outer(to_value, part["value"]) * (seen.head > 0)
        into["head"][:], into["head_bias"][:] = seen.body.T @ to_head, to_head.sum(axis=0)
        to_body = (to_chance @ part["policy"].T + to_head @ part["head"].T) * (seen.body > 0)
        into["second"][:], into["second_bias"][:] = seen.middle.T @ to_body, to_body.sum(axis=0)
        to_middle = (to_body @ part["second"].T) * (seen.middle > 0)
        into["first"][:], into["first_bias"][:] = seen.entry.T @ to_middle, to_middle.sum(axis=0)
        to_entry = (to_body + to_middle @ part["first"].T) * (seen.entry > 0)
        into["entry"][:], into["entry_bias"][:] = seen.planes.T @ to_entry, to_entry.sum(axis=0)


def generation0(rules: Rules, job: Job) -> Network:
    """The lane's first network, the same on every node."""
    network = Network(rules.features, rules.actions, job.whole("width"))
    network.draw(job.whole("generation0_seed"))
    return network


def load_network(path: Path, rules: Rules, field: str) -> Network:
    """The network of a model file. Raises BadJob naming `field` when it is no model of this game."""
    try:
        with np.load(path, allow_pickle=False) as file:
            weights, about = file["weights"], json.loads(str(file["metadata"]))
        network = Network(about["features"], about["actions"], about["width"], np.asarray(weights, np.float32))
    except Exception as error:
        raise BadJob(f"{field} = {str(path)!r}: not a model file ({error}); name a model.npz of this engine") from error
    if (about["game"], about["game_params"]) != (rules.name, rules.params):
        raise BadJob(
            f"{field} = {str(path)!r}: a model of {about['game']} {about['game_params']}, the job plays {rules.name} "
            f"{rules.params}; name a model of the same lane"
        )
    if not np.isfinite(network.weights).all():
        raise BadJob(f"{field} = {str(path)!r}: its weights are not all finite; name another model")
    return network


def network_of(job: Job, rules: Rules, name: str) -> Network:
    """The network of a model input, or generation 0 when the input is null."""
    path = job.file(name)
    return generation0(rules, job) if path is None else load_network(path, rules, f"inputs.{name}")


def save_network(path: Path, network: Network, rules: Rules, about: dict[str, Any]) -> None:
    """Writes weights and metadata; equal ones give equal bytes."""
    metadata = {
        "game": rules.name, "game_params": rules.params, "features": network.features, "actions": network.actions,
        "width": network.width, **about,
    }  # fmt: skip
    with path.open("wb") as file:
        np.savez(file, weights=network.weights, metadata=np.array(json.dumps(metadata, sort_keys=True)))
