"""The numbers of `selfplay-orch`: times in seconds, shares in [0, 1]."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from sparring.service import ServiceSettings


class Settings(ServiceSettings):
    """Limits per node and cluster; a task's lease must be shorter than its timeout."""

    selfplay_s: float = Field(default=1_800.0, gt=0)
    lease_s: float = Field(default=30.0, gt=0)
    beat_fresh_s: float = Field(default=10.0, gt=0)
    replan_s: float = Field(default=10.0, gt=0)
    node_selfplay: int = Field(default=32, ge=1)
    reserved_seats: int = Field(default=1, ge=0)
    spawns_per_minute: int = Field(default=60, ge=1)
    most_memory: float = Field(default=0.8, gt=0, le=1)
    most_cpu: float = Field(default=0.8, gt=0, le=1)
    disk_reserve_bytes: int = Field(default=1024**3, ge=0)
    train_on_ephemeral: bool = False

    @model_validator(mode="after")
    def _lease_below_timeout(self) -> Self:
        if self.lease_s >= self.selfplay_s:
            raise ValueError(f"lease_s = {self.lease_s} must be below selfplay_s = {self.selfplay_s}")
        return self
