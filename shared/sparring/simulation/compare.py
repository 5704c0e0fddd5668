"""Two policies on the same seeds: paired differences with a bootstrap interval."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sparring.contracts.selfplay_orch import RequestTask
from sparring.simulation.cluster import Cluster
from sparring.simulation.policies import Policy
from sparring.simulation.report import report
from sparring.simulation.setup import Setup

RESAMPLES = 10_000
MEASURES: Mapping[str, Callable[[dict[str, Any]], float]] = {
    "utilisation": lambda found: float(found["utilisation"]),
    "games an hour": lambda found: float(found["games_per_hour"]),
    "promotions a day": lambda found: 24 * found["promotions"] / max(found["hours"], 1e-9),
    "fairness": lambda found: float(found["fairness"]),
    "longest gap of a lane, s": lambda found: float(found["starvation_s"]),
    "wasted share": lambda found: float(found["wasted_share"]),
    "p90 wait of the pipeline's work, s": lambda found: max(
        (row["p90_s"] or 0.0 for row in found["waits"] if row["kind"] != "selfplay"), default=0.0
    ),
}


def _unheard(share: float) -> None:
    """Nobody looks."""


@dataclass(frozen=True)
class Difference:
    """The second policy minus the first: mean over the seeds, with its 95 % interval."""

    measure: str
    first: float
    second: float
    difference: float
    low: float
    high: float

    @property
    def clear(self) -> bool:
        return self.low > 0 or self.high < 0


def run(
    setup: Setup, policy: Policy, seconds: float, orders: Sequence[tuple[float, RequestTask]] = (),
    progress: Callable[[float], None] = _unheard,
) -> Cluster:  # fmt: skip
    """One run under the policy; `orders` arrive at their seconds, `progress` hears the share that is done."""
    merged = {name: dict(values) for name, values in setup.settings.items()}
    for service, values in policy.settings.items():
        merged.setdefault(service, {}).update(values)
    with policy.in_force():
        cluster = Cluster(replace(setup, settings=merged))
        for at, order in orders:
            cluster.timeline.at(at, cluster.publish, order, f"arrival-{order.task}", order.by)
        for part in range(1, 101):
            cluster.run(seconds / 100)
            progress(part / 100)
    return cluster


def paired(first: Sequence[float], second: Sequence[float], measure: str, seed: int = 0) -> Difference:
    """Percentile bootstrap over the pairs (Efron & Tibshirani 1993, ch. 13); with one seed the interval is a point."""
    pairs = [two - one for one, two in zip(first, second, strict=True)]
    rng = random.Random(f"bootstrap/{seed}/{measure}")
    means = sorted(sum(rng.choices(pairs, k=len(pairs))) / len(pairs) for _ in range(RESAMPLES))
    return Difference(
        measure, sum(first) / len(first), sum(second) / len(second), sum(pairs) / len(pairs),
        means[int(0.025 * RESAMPLES)], means[int(0.975 * RESAMPLES) - 1],
    )  # fmt: skip


def compare(
    setup: Setup, policies: tuple[Policy, Policy], seeds: Sequence[int], seconds: float,
    orders: Sequence[tuple[float, RequestTask]] = (), progress: Callable[[float], None] = _unheard,
) -> list[Difference]:  # fmt: skip
    """Both policies on every seed; nodes, durations, failures and strengths of a seed are the same for both."""
    found: dict[str, list[dict[str, Any]]] = {one.name: [] for one in policies}
    done, runs = 0, len(seeds) * len(policies)
    for seed in seeds:
        for policy in policies:
            base = done / runs
            cluster = run(replace(setup, seed=seed), policy, seconds, orders,
                          lambda share, base=base: progress(base + share / runs))  # type: ignore[misc]  # fmt: skip
            found[policy.name].append(report(cluster))
            done += 1
    first, second = (found[one.name] for one in policies)
    return [
        paired([measure(one) for one in first], [measure(one) for one in second], name)
        for name, measure in MEASURES.items()
    ]
