"""The numbers of `health`: times in seconds, shares in [0, 1]."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from sparring.service import ServiceSettings


class Settings(ServiceSettings):
    """When silence becomes suspicion and loss, and how alarms repeat."""

    suspect_s: float = Field(default=10.0, gt=0)
    lost_s: float = Field(default=20.0, gt=0, le=25)
    observers_least: int = Field(default=3, ge=2)
    silent_share: float = Field(default=0.3, gt=0, lt=1)
    observation_s: float = Field(default=120.0, gt=0)
    service_silent_s: float = Field(default=15.0, gt=0)
    score_s: float = Field(default=10.0, gt=0)
    alarm_repeat_s: float = Field(default=3_600.0, gt=0)
    overdue_s: float = Field(default=60.0, gt=0)
    reconcile_s: float = Field(default=60.0, gt=0)
    stalled_s: float = Field(default=30.0, gt=0)
    redrives_a_round: int = Field(default=10, ge=1)
    disk_least_bytes: int = Field(default=1024**3, ge=0)

    @model_validator(mode="after")
    def _order(self) -> Self:
        if self.lost_s <= self.suspect_s:
            raise ValueError(f"lost_s = {self.lost_s} must be above suspect_s = {self.suspect_s}")
        return self
