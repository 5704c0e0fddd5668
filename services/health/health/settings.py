"""The numbers of `health`: times in seconds, shares in [0, 1]."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from sparring.service import ServiceSettings


class Settings(ServiceSettings):
    """When silence becomes suspicion and loss, when breakers open and close, what pauses the cluster, who hears alarms."""

    look_s: float = Field(default=0.5, gt=0)
    # nodes
    suspect_s: float = Field(default=10.0, gt=0)
    lost_s: float = Field(default=20.0, gt=0, le=25)
    lost_least_s: float = Field(default=15.0, gt=0, le=25)
    lost_most_s: float = Field(default=25.0, gt=0, le=25)
    lost_target: float = Field(default=0.95, gt=0, lt=1)
    # limits of handlers, per service
    handler_least_s: float = Field(default=5.0, gt=0)
    handler_most_s: float = Field(default=120.0, gt=0)
    handler_target: float = Field(default=0.95, gt=0, lt=1)
    observers_least: int = Field(default=3, ge=2)
    silent_share: float = Field(default=0.3, gt=0, lt=1)
    observation_s: float = Field(default=120.0, gt=0)
    builds: tuple[str, ...] = Field(default=(), description="builds of agents that get work; empty: any that fits")
    forget_s: float = Field(default=86_400.0, gt=0)
    forget_ephemeral_s: float = Field(default=3_600.0, gt=0)
    # readings and queues
    reading_known_s: float = Field(default=120.0, gt=0)
    disk_least_bytes: int = Field(default=1024**3, ge=0)
    memory_least_share: float = Field(default=0.03, ge=0, lt=1)
    spool_most_bytes: int = Field(default=20 * 1024**3, ge=0)
    # breakers and recovery
    breaker_failures: int = Field(default=5, ge=1)
    breaker_s: float = Field(default=60.0, gt=0)
    breaker_most_s: float = Field(default=600.0, gt=0)
    standstill_s: float = Field(default=1_800.0, gt=0)
    recovery_cooldown_s: float = Field(default=300.0, gt=0)
    recovery_quiet_s: float = Field(default=3_600.0, gt=0)
    # score and switch
    automatic: bool = Field(default=True, description="whether health pauses and resumes the cluster by itself")
    score_s: float = Field(default=10.0, gt=0)
    errors_s: float = Field(default=300.0, gt=0)
    pause_below: float = Field(default=0.40, ge=0, le=1)
    pause_lost_share: float = Field(default=0.5, gt=0, le=1)
    pause_errors: int = Field(default=10, ge=1)
    pause_error_share: float = Field(default=0.1, ge=0, le=1)
    resume_at: float = Field(default=0.60, ge=0, le=1)
    resume_s: float = Field(default=120.0, ge=0)
    override_s: float = Field(default=3_600.0, gt=0)
    # services and alarms
    service_silent_s: float = Field(default=15.0, gt=0)
    loop_lag_s: float = Field(default=1.0, gt=0)
    behind_facts: int = Field(default=10_000, ge=1)
    handler_success: float = Field(default=0.9, gt=0, le=1)
    overdue_s: float = Field(default=60.0, gt=0)
    alarm_repeat_s: float = Field(default=3_600.0, gt=0)
    webhook_url: str = Field(default="", description="gets every alarm and its clearing as a JSON POST")
    alarm_command: str = Field(default="", description="a command line that gets each as JSON on its standard input")
    alarm_timeout_s: float = Field(default=10.0, gt=0)
    # dead letters
    reconcile_s: float = Field(default=60.0, gt=0)
    stalled_s: float = Field(default=30.0, gt=0)
    redrives_a_round: int = Field(default=10, ge=1)

    @model_validator(mode="after")
    def _order(self) -> Self:
        if self.lost_s <= self.suspect_s:
            raise ValueError(f"lost_s = {self.lost_s} must be above suspect_s = {self.suspect_s}")
        for most, least in (
            ("resume_at", "pause_below"),
            ("breaker_most_s", "breaker_s"),
            ("lost_most_s", "lost_least_s"),
            ("handler_most_s", "handler_least_s"),
        ):
            if getattr(self, most) < getattr(self, least):
                raise ValueError(f"{most} = {getattr(self, most)} must not be below {least} = {getattr(self, least)}")
        if self.webhook_url and not self.webhook_url.startswith(("http://", "https://")):
            raise ValueError(f"webhook_url = {self.webhook_url!r} must begin with http:// or https://")
        return self
