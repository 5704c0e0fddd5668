"""The numbers of `selfplay-orch`: times in seconds, shares in [0, 1]."""

from __future__ import annotations

import json
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from sparring.service import ServiceSettings


class KindRules(BaseModel):
    """One kind of task: how long it may take, how many may run, what is reserved for it.

    `cluster` and `cluster_per_node` give the cluster limit max(cluster, cluster_per_node × nodes). `reserved` is the
    number of running tasks below which the kind goes before kinds that have theirs; `head_start_s` is how much earlier
    than it was requested a task counts as requested.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    timeout_s: float = Field(default=7_200.0, gt=0)
    expected_s: float = Field(default=3_600.0, gt=0)
    max_attempts: int = Field(default=3, ge=1)
    per_node: int = Field(default=2, ge=1)
    cluster: int = Field(default=500, ge=1)
    cluster_per_node: float = Field(default=0.0, ge=0)
    reserved: int = Field(default=0, ge=0)
    head_start_s: float = Field(default=0.0, ge=0)
    on_ephemeral: bool = True


OTHER = "other"
KINDS: dict[str, dict[str, Any]] = {
    "selfplay": {"timeout_s": 1_800, "expected_s": 300, "per_node": 32, "cluster": 500, "cluster_per_node": 10},
    "export": {"timeout_s": 3_600, "expected_s": 300, "reserved": 1, "head_start_s": 120},
    "train": {"timeout_s": 86_400, "expected_s": 14_400, "per_node": 1, "cluster": 3, "reserved": 1,
              "head_start_s": 120, "on_ephemeral": False},
    "evaluate": {"timeout_s": 7_200, "expected_s": 3_600, "cluster": 2, "cluster_per_node": 0.1, "reserved": 1,
                 "head_start_s": 120, "on_ephemeral": False},
    "tune": {"timeout_s": 14_400, "expected_s": 3_600, "per_node": 1, "cluster": 1, "on_ephemeral": False},
    "transfer": {"timeout_s": 3_600, "expected_s": 600},
    OTHER: {},
}  # fmt: skip


def _kinds() -> dict[str, KindRules]:
    return {name: KindRules(**rules) for name, rules in KINDS.items()}


class Settings(ServiceSettings):
    """Limits per node and cluster; timeouts, leases and beats are checked against each other here.

    `kinds` may be given in part: what is not named keeps its default. The kind `other` holds for users' own kinds.
    Every `look_up_s` a running task is looked up in its node's beat, and a waiting one asked whether it is still wanted.
    """

    kinds: dict[str, KindRules] = Field(default_factory=_kinds)
    lease_s: float = Field(default=30.0, gt=0)
    look_up_s: float = Field(default=15.0, gt=0)
    beat_fresh_s: float = Field(default=10.0, gt=0)
    reading_known_s: float = Field(default=30.0, gt=0)
    start_s: float = Field(default=120.0, gt=0)
    grace_s: float = Field(default=60.0, ge=0)
    wait_s: float = Field(default=86_400.0, gt=0)
    retry_s: tuple[float, ...] = (1.0, 5.0, 30.0)
    most_assignments: int = Field(default=20, ge=1)
    replan_s: float = Field(default=10.0, gt=0)
    replan_share: float = Field(default=0.01, ge=0, le=1)
    deny_again_s: float = Field(default=60.0, gt=0)
    reserved_seats: int = Field(default=1, ge=0)
    reserve_head_start_s: float = Field(default=600.0, ge=0)
    spawns_per_minute: int = Field(default=60, ge=6)
    cooldown_s: float = Field(default=1.0, ge=0)
    most_memory: float = Field(default=0.8, gt=0, le=1)
    most_cpu: float = Field(default=0.8, gt=0, le=1)
    disk_reserve_bytes: int = Field(default=1024**3, ge=0)
    ephemeral_life_s: float = Field(default=1_800.0, gt=0)
    most_a_call: int = Field(default=64, ge=1)

    @field_validator("kinds", mode="before")
    @classmethod
    def _over_the_defaults(cls, value: Any) -> Any:
        given = json.loads(value) if isinstance(value, str) else value
        if not isinstance(given, dict):
            return given
        plain = {name: one.model_dump() if isinstance(one, KindRules) else one for name, one in given.items()}
        return {name: KINDS.get(name, {}) | plain.get(name, {}) for name in [*KINDS, *(set(plain) - set(KINDS))]}

    @model_validator(mode="after")
    def _times_fit_each_other(self) -> Self:
        for name, one in self.kinds.items():
            if self.lease_s >= one.timeout_s:
                raise ValueError(f"lease_s = {self.lease_s} must be below kinds.{name}.timeout_s = {one.timeout_s}")
            if one.expected_s > one.timeout_s:
                raise ValueError(
                    f"kinds.{name}.timeout_s = {one.timeout_s} must not be below expected_s = {one.expected_s}"
                )
        if self.beat_fresh_s >= self.lease_s:
            raise ValueError(f"beat_fresh_s = {self.beat_fresh_s} must be below lease_s = {self.lease_s}")
        if self.start_s < self.lease_s:
            raise ValueError(f"start_s = {self.start_s} must not be below lease_s = {self.lease_s}")
        return self

    def kind(self, name: str) -> KindRules:
        """The rules of a kind; users' kinds go by `other`."""
        return self.kinds.get(name) or self.kinds[OTHER]
