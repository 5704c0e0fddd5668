"""One seed on trial: a run under its faults, what it broke, and the smallest schedule that still breaks it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from sparring.simulation.cluster import Cluster
from sparring.simulation.faults import Fault, Faults, schedule
from sparring.simulation.setup import Setup, quick

SECONDS, SECONDS_A_FAULT = 1_200.0, 120.0


@dataclass(frozen=True)
class Verdict:
    """`violations` is empty when everything held."""

    seed: int
    faults: tuple[Fault, ...]
    violations: tuple[str, ...]
    facts: int
    promotions: int
    seconds: float = SECONDS

    @property
    def failed(self) -> bool:
        return bool(self.violations)

    def reproduce(self, all_faults: int) -> str:
        """The command that shows it again."""
        only = ",".join(str(one.number) for one in self.faults)
        fewer = f" --faults {only}" if len(self.faults) < all_faults else ""
        return f"spar simulate --chaos --seed {self.seed} --minutes {self.seconds / 60:g}{fewer}"


def faults_of(setup: Setup, seconds: float = SECONDS) -> tuple[Fault, ...]:
    """One fault for every two minutes of the run, at least three."""
    count = max(3, round(seconds / SECONDS_A_FAULT))
    return schedule(setup, seconds, count, [f"n{number}" for number in range(1, setup.nodes + 1)])


def chaotic(seed: int) -> Setup:
    """A small cluster with two replicas of each service; a fifth of what is exported is refused for its quality."""
    plain = quick(seed, nodes=4, replicas=2)
    return replace(plain, work=replace(plain.work, thin=0.2))


def trial(setup: Setup, faults: Sequence[Fault], seconds: float = SECONDS) -> Verdict:
    """Runs the schedule; an error anywhere is a violation too, with its place."""
    cluster = Cluster(setup)
    Faults(cluster, faults)
    broken: list[str] = []
    try:
        cluster.run(seconds)
    # whatever a core raises is what the trial looks for
    except Exception as error:  # noqa: BLE001
        broken.append(f"no error: at {cluster.timeline.now:.1f} s: {_place(error)}")
    broken += cluster.watcher.violations if cluster.watcher else []
    broken += cluster.unfolded()
    return Verdict(setup.seed, tuple(faults), tuple(broken), cluster.ledger.end, len(cluster.chronicle.promotions),
                   seconds)  # fmt: skip


def _place(error: Exception) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = f"{trace.tb_frame.f_code.co_filename.rsplit('/', 1)[-1]}:{trace.tb_lineno}" if trace else "?"
    return f"{type(error).__name__} in {where}: {error}"


def shrunk(setup: Setup, faults: Sequence[Fault], seconds: float = SECONDS) -> Verdict:
    """The failing schedule without the faults that it does not need: halves first, then one by one."""
    return _shrunk(tuple(faults), lambda kept: trial(setup, kept, seconds))


def _shrunk(faults: tuple[Fault, ...], attempt: Callable[[tuple[Fault, ...]], Verdict]) -> Verdict:
    best = attempt(faults)
    size = max(1, len(faults) // 2)
    while best.failed and size:
        kept = best.faults
        for start in range(0, len(kept), size):
            fewer = tuple(one for one in best.faults if one not in kept[start : start + size])
            if len(fewer) < len(best.faults):
                found = attempt(fewer)
                best = found if found.failed else best
        size = size // 2
    return best


def seeded(seed: int, only: Sequence[int] = (), seconds: float = SECONDS) -> Verdict:
    """The trial of a seed; `only` keeps these numbers of its schedule."""
    setup = chaotic(seed)
    faults = faults_of(setup, seconds)
    return trial(setup, [one for one in faults if not only or one.number in only], seconds)
