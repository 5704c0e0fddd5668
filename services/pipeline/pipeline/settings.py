"""The numbers of `pipeline`: deadlines in seconds, and how often a stage is tried."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from sparring.service import ServiceSettings

# how often a slot is renewed while its training waits for a seat, in seconds
RENEW_BUCKET_S = 30


class Settings(ServiceSettings):
    """A stage that passes its deadline is tried again, then its iteration is closed as failed.

    A model that passed waits for a person for `person_s`, and that is said again. A training that gives way to others uses
    up no attempt, `most_interruptions` times. Data below `low_quality` holds the lane's training back for `hold_s`.
    """

    collect_s: float = Field(default=7_200.0, gt=0)
    seal_s: float = Field(default=1_800.0, gt=0)
    export_s: float = Field(default=3_600.0, gt=0)
    train_s: float = Field(default=86_400.0, gt=0)
    evaluate_s: float = Field(default=7_200.0, gt=0)
    promote_s: float = Field(default=600.0, gt=0)
    person_s: float = Field(default=86_400.0, gt=0)
    attempts: int = Field(default=3, ge=1)
    breaker_failures: int = Field(default=3, ge=1)
    breaker_s: float = Field(default=300.0, gt=0)
    most_interruptions: int = Field(default=20, ge=0)
    low_quality: float = Field(default=0.7, ge=0, le=1)
    hold_s: float = Field(default=3_600.0, gt=0)
    slot_lease_s: float = Field(default=90.0, gt=0)

    @model_validator(mode="after")
    def _leases_fit(self) -> Self:
        if self.slot_lease_s <= 2 * RENEW_BUCKET_S:
            raise ValueError(
                f"slot_lease_s = {self.slot_lease_s} must be above twice {RENEW_BUCKET_S:g} s, the time between renewals"
            )
        if self.slot_lease_s >= self.train_s:
            raise ValueError(f"slot_lease_s = {self.slot_lease_s} must be below train_s = {self.train_s}")
        return self
