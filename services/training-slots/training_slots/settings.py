"""The numbers of `training-slots`."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from sparring.service import ServiceSettings


class Settings(ServiceSettings):
    """`slots` in the whole cluster; a lease must outlast two renewals. `grace_s` is what a preempted holder gets."""

    slots: int = Field(default=3, ge=1)
    lease_s: float = Field(default=90.0, gt=0)
    renew_s: float = Field(default=30.0, gt=0)
    grace_s: float = Field(default=60.0, ge=0)
    claim_expires_s: float = Field(default=86_400.0, gt=0)

    @model_validator(mode="after")
    def _lease_outlasts_renewals(self) -> Self:
        if self.lease_s <= 2 * self.renew_s:
            raise ValueError(f"lease_s = {self.lease_s} must be above twice renew_s = {self.renew_s}")
        return self
