"""What the network does to messages: delays, doubles, lost acknowledgements, poison; drawn from one seed."""

from __future__ import annotations

import random
from dataclasses import dataclass

from sparring.simulation.setup import Pace


@dataclass
class Weather:
    """Shares in [0, 1] and seconds; calm unless a fault says otherwise."""

    rng: random.Random
    pace: Pace
    doubled: float = 0.0
    unacknowledged: float = 0.0
    slow_s: float = 0.0
    poisoned: float = 0.0

    def delay(self) -> float:
        low, high = self.pace.deliver_s
        extra = self.rng.random() * self.slow_s if self.slow_s else 0.0
        return low + (high - low) * self.rng.random() + extra

    def doubles(self) -> bool:
        return self.doubled > 0 and self.rng.random() < self.doubled

    def loses_acknowledgement(self) -> bool:
        return self.unacknowledged > 0 and self.rng.random() < self.unacknowledged

    def poisons(self) -> bool:
        return self.poisoned > 0 and self.rng.random() < self.poisoned
