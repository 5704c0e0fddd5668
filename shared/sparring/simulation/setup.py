"""What a simulation is made of: nodes, lanes, durations, settings; everything else follows from the seed."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sparring.contracts.lanes import GateRules, IterationRules, LaneSpec, QueueLimits
from sparring.contracts.parts import TaskSpec
from sparring.simulation.learning import Curve
from sparring.simulation.machines import Churn, Machine

HOUR, DAY = 3600.0, 86_400.0


@dataclass(frozen=True)
class Work:
    """How long tasks take on a machine of speed 1 and what they yield; `noise` is the spread of the logarithm of a
    duration, `failing` the share of tasks whose program fails, `thin` that of exports whose data is refused. `drawn`
    replaces durations by those of a real log, in seconds per kind; of self-play per game."""

    game_s: float = 5.0
    positions: int = 40
    game_bytes: int = 4_000
    export_s: float = 60.0
    train_s: float = 900.0
    other_s: float = 600.0
    noise: float = 0.10
    failing: float = 0.002
    thin: float = 0.0
    drawn: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    def seconds(self, spec: TaskSpec, machine: Machine, rng: random.Random) -> float:
        known = self.drawn.get(spec.kind)
        if known:
            games = max(1, int(spec.work.get("games", 1))) if spec.kind == "selfplay" else 1
            return max(0.1, rng.choice(known) * games * machine.slow)
        scaled = self._plain(spec) * math.exp(rng.gauss(0.0, self.noise)) * machine.slow / machine.kind.speed
        return max(0.1, scaled)

    def _plain(self, spec: TaskSpec) -> float:
        match spec.kind:
            case "selfplay":
                return self.game_s * max(1, int(spec.work.get("games", 1)))
            case "evaluate":
                return 2 * self.game_s * max(1, int(spec.work.get("pairs", 1)))
            case "export":
                return self.export_s
            case "train":
                return self.train_s
            case _:
                return self.other_s


@dataclass(frozen=True)
class Pace:
    """Delays in seconds: a message's between `deliver_s`, a replica hears facts `settle_s` after the first of a batch,
    a planner ticks every `tick_s` (None: as often as the service says), or as `ticks` has it for its service. Planners
    named in `ticked` plan at their ticks only, not after facts. Those in `woken` plan that many seconds after a node came
    or went, too."""

    deliver_s: tuple[float, float] = (0.001, 0.010)
    settle_s: float = 0.005
    tick_s: float | None = None
    ticked: tuple[str, ...] = ()
    ticks: Mapping[str, float] = field(default_factory=dict)
    woken: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


# for days of virtual time, where a few seconds more or less of waiting say nothing. Health looks at every node each time:
# at each step of its controllers (30 s), and when a node may be heard, suspected or lost for the first time
COARSE = Pace(settle_s=5.0, tick_s=10.0, ticked=("health", "lifecycle", "pipeline", "sync", "training-slots"),
              ticks={"health": 31.0}, woken={"health": (1, 6, 11, 21, 26)})  # fmt: skip
# a call stands for the many that production would make meanwhile
COARSE_SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "selfplay-orch": {"most_a_call": 1_000, "look_up_s": 300.0},
    "sync": {"cluster_transfers": 400},
}


def lane(name: str, **more: Any) -> LaneSpec:
    """A lane whose programs are simulated."""
    kinds = ("selfplay", "export", "train", "evaluate")
    plain: dict[str, Any] = {
        "name": name,
        "game": "simulated",
        "commands": dict.fromkeys(kinds, ("simulated", "{job}", "{out}")),
        "iteration": IterationRules(min_positions=100_000, min_new_games=1_000, games_per_task=60),
        "gate": GateRules(elo1=35.0, max_pairs=400, pairs_per_task=25, parallel_tasks=2, anchor_pairs=25),
        "backpressure": QueueLimits(
            training_data_positions_soft=1_000_000, training_data_positions_hard=3_000_000
        ),
    }  # fmt: skip
    return LaneSpec(**(plain | more))


LANES = (lane("alpha"), lane("beta"))
FIT_FOR = 50


def lanes_for(nodes: int) -> tuple[LaneSpec, ...]:
    """The two lanes as somebody with that many nodes would set them: above 50 an iteration, and what may wait for the
    trainer, grow with the cluster; else back-pressure would stop most of its self-play."""
    times = max(1.0, nodes / FIT_FOR)

    def grown(one: LaneSpec) -> LaneSpec:
        rules, limits = one.iteration, one.backpressure
        return one.model_copy(update={
            "iteration": rules.model_copy(update={
                "min_positions": int(rules.min_positions * times), "min_new_games": int(rules.min_new_games * times)}),
            "backpressure": limits.model_copy(update={
                "training_data_positions_soft": int(limits.training_data_positions_soft * times),
                "training_data_positions_hard": int(limits.training_data_positions_hard * times)}),
        })  # fmt: skip

    return tuple(grown(one) for one in LANES)


@dataclass(frozen=True)
class Setup:
    """`settings` are values by service that differ from its defaults; `replicas` of each service run at once. A kept
    log holds every fact to the end."""

    seed: int = 1
    nodes: int = 6
    seats: int | None = 1
    lanes: tuple[LaneSpec, ...] = LANES
    churn: Churn = field(default_factory=Churn)
    work: Work = field(default_factory=Work)
    curve: Curve = field(default_factory=Curve)
    pace: Pace = field(default_factory=Pace)
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    replicas: int = 1
    keep_log: bool = True
    watched: bool = True


def quick(seed: int = 1, **more: Any) -> Setup:
    """A loop that closes within minutes of virtual time: small iterations, short tasks."""
    lanes = tuple(
        lane(
            name,
            task_target_s=20.0,
            iteration=IterationRules(min_positions=4_000, min_new_games=100, games_per_task=4, export_cooldown_s=0.0),
            gate=GateRules(elo1=60.0, max_pairs=100, pairs_per_task=10, parallel_tasks=2, anchor_pairs=5),
            backpressure=QueueLimits(training_data_positions_soft=40_000, training_data_positions_hard=120_000),
        )
        for name in ("alpha", "beta")
    )
    work = Work(game_s=1.0, export_s=5.0, train_s=30.0, other_s=20.0)
    plain: dict[str, Any] = {"seed": seed, "lanes": lanes, "work": work, "seats": 2}
    return Setup(**(plain | more))
