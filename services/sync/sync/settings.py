"""The numbers of `sync`: times in seconds, rates in bits per second."""

from __future__ import annotations

from pydantic import Field

from sparring.service import ServiceSettings


class Settings(ServiceSettings):
    """Transfers per node and cluster, leases, and how long a vanished node is waited for."""

    node_transfers: int = Field(default=3, ge=1)
    cluster_transfers: int = Field(default=8, ge=1)
    link_bits_per_s: int = Field(default=100_000_000, gt=0)
    lease_s: float = Field(default=120.0, gt=0)
    stale_s: float = Field(default=1_800.0, gt=0)
    critical_s: float = Field(default=3_600.0, gt=0)
    ephemeral_gone_s: float = Field(default=600.0, gt=0)
    gone_s: float = Field(default=86_400.0, gt=0)
    keep_datasets: int = Field(default=8, ge=1)
    keep_s: float = Field(default=1_800.0, ge=0)
    # a manifest is one fact, and a message has at most 8 MB
    manifest_bytes: int = Field(default=6_000_000, gt=0, le=8_000_000)
