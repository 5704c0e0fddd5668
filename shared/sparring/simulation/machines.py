"""The simulated machines: what they have, how fast they are, what they cost, how they fail."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from sparring.contracts.readings import Gpu, Resources

GIB = 1024**3


@dataclass(frozen=True)
class MachineClass:
    """`speed` is relative to the durations of the setup; `price` is per hour, in the provider's currency."""

    name: str
    cores: float
    memory_gib: int
    gpus: tuple[str, ...] = ()
    speed: float = 1.0
    price: float = 0.10
    ephemeral: bool = False


CLASSES: tuple[tuple[MachineClass, float], ...] = (
    (MachineClass("cpu8", 8, 32, (), 0.8, 0.08), 0.35),
    (MachineClass("cpu8-spot", 8, 32, (), 0.8, 0.03, ephemeral=True), 0.25),
    (MachineClass("rtx4090", 16, 64, ("NVIDIA GeForce RTX 4090",), 1.6, 0.40), 0.25),
    (MachineClass("h100", 32, 256, ("NVIDIA H100 80GB HBM3",), 3.0, 2.20), 0.15),
)


@dataclass
class Machine:
    """One machine. `seats` is the operator's own limit, `slow` multiplies all durations."""

    name: str
    kind: MachineClass
    seats: int | None = None
    bits_per_s: float = 100e6
    slow: float = 1.0
    disk_free_bytes: int = 200 * GIB
    fixed: dict[tuple[int, bool], Resources] = field(default_factory=dict)

    def resources(self, running: int) -> Resources:
        """Load rises with what runs: 70 % when all seats of its class are taken."""
        full = self.seats or max(1, int(self.kind.cores // 2))
        low = self.disk_free_bytes < GIB
        known = self.fixed.get((running, low))
        if known is None:
            known = self.fixed[running, low] = self._resources(min(1.0, 0.7 * running / full))
        return known

    def _resources(self, load: float) -> Resources:
        total = self.kind.memory_gib * GIB
        cards = tuple(
            Gpu(name=name, utilisation=load, memory_used_bytes=8 * GIB, memory_total_bytes=24 * GIB,
                temperature_c=40 + 35 * load)
            for name in self.kind.gpus
        )  # fmt: skip
        return Resources(
            cores=self.kind.cores, cpu_share=round(load, 3), foreign_cpu_share=0.05, memory_total_bytes=total,
            memory_available_bytes=int(total * (0.9 - 0.4 * load)), disk_free_bytes=self.disk_free_bytes,
            disk_total_bytes=256 * GIB, gpus=cards,
        )  # fmt: skip


def fleet(nodes: int, seats: int | None, rng: random.Random) -> list[Machine]:
    """Machines of all classes, in their shares; the first one is persistent and has a card, so that training has a home."""
    classes, weights = [kind for kind, _ in CLASSES], [weight for _, weight in CLASSES]
    drawn = rng.choices(classes, weights, k=nodes)
    if drawn:
        drawn[0] = classes[2]
    return [
        Machine(f"n{number:0{len(str(nodes))}d}", kind, seats, rng.choice((50e6, 100e6, 1e9)))
        for number, kind in enumerate(drawn, start=1)
    ]


@dataclass(frozen=True)
class Churn:
    """How nodes come and go: `share` of them leave a day; of the ephemeral ones half with notice, of the others all hard
    or by a restart of their agent. Gone ones return after `away_s` on average."""

    share: float = 0.0
    away_s: float = 900.0

    def next_s(self, ephemeral: bool, rng: random.Random) -> float:
        """Seconds until the next departure; ephemeral nodes leave three times as often."""
        if self.share <= 0:
            return float("inf")
        return rng.expovariate(self.share * (3.0 if ephemeral else 1.0) / 86_400.0)

    def how(self, ephemeral: bool, rng: random.Random) -> str:
        if ephemeral:
            return rng.choice(("notice", "preempted"))
        return rng.choice(("died", "restarted"))
