"""The numbers of `lifecycle`: times in seconds. The gates' own rules stand in the lane file."""

from __future__ import annotations

from pydantic import Field

from sparring.service import ServiceSettings


class Settings(ServiceSettings):
    """A gate that is not decided in time is decided on what was played. A regression holds training back for `hold_s`."""

    gate_s: float = Field(default=7_200.0, gt=0)
    hold_s: float = Field(default=3_600.0, gt=0)
    evaluate_s: float = Field(default=3_600.0, gt=0)
