"""A node's controller: moves its seats so that the machine is busy and not more."""

from __future__ import annotations

from dataclasses import dataclass

from sparring.decider import replace

SET_POINT = 0.70
BAND = (0.60, 0.80)
UP_BELOW, DOWN_ABOVE = 0.55, 0.85
KP, KI, KD = 0.5, 0.1, 0.1
SMOOTHING = 0.3
AHEAD_S = 120.0
STEP_S = 30.0


@dataclass(frozen=True)
class Controller:
    """A PID controller in seats; `output` is the smoothed target, `integral` grows no further than the output does. `ahead` is the
    load that the last step expected in 120 s."""

    output: float
    integral: float = 0.0
    last_error: float | None = None
    last_load: float | None = None
    ahead: float = 0.0

    def step(self, load: float, least: float, most: float, seconds: float = STEP_S) -> Controller:
        """One step on the machine's load (busy share, 0..1), with what it will be in 120 s if it goes on so."""
        slope = 0.0 if self.last_load is None else (load - self.last_load) / seconds
        ahead = min(1.0, max(0.0, load + slope * AHEAD_S)) if slope > 0 else load
        worst = max(load, ahead)
        error = SET_POINT - worst
        if BAND[0] <= worst <= BAND[1]:
            return replace(self, last_error=error, last_load=load, ahead=ahead)
        rate = 0.0 if self.last_error is None else (error - self.last_error) / seconds
        integral = self.integral + error * seconds / STEP_S
        wanted = self.output * (1 + KP * error + KI * integral + KD * rate)
        inside = min(most, max(least, wanted))
        if (wanted > most and error > 0) or (wanted < least and error < 0):
            # anti-windup: beyond a limit the integral grows no further outwards, and comes back as soon as the error turns
            integral = self.integral
        output = SMOOTHING * inside + (1 - SMOOTHING) * self.output
        return Controller(output, integral, error, load, ahead)

    def seats(self, now: int, load: float, least: int, most: int) -> int:
        """Whole seats; up only below 55 % load, down only above 85 %, now or in 120 s."""
        target = min(most, max(least, round(self.output)))
        if target > now and max(load, self.ahead) >= UP_BELOW:
            return now
        if target < now and max(load, self.ahead) <= DOWN_ABOVE:
            return now
        return target
