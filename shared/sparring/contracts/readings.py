"""Readings: heartbeats and progress, kept 15 minutes, never replayed."""

from __future__ import annotations

from sparring.contracts.base import Count, Field, Instant, Name, Part, Seconds
from sparring.contracts.parts import Kind


class Gpu(Part):
    """What the card said; None where its driver did not answer."""

    name: str
    utilisation: float | None = Field(default=None, description="0..1")
    memory_used_bytes: Count | None = None
    memory_total_bytes: Count | None = None
    temperature_c: float | None = None
    power_w: float | None = None
    ecc_errors: Count | None = None


class Resources(Part):
    cores: float
    cpu_share: float = Field(description="busy share of all cores, 0..1")
    foreign_cpu_share: float = Field(description="the part of it that is not our own children")
    memory_total_bytes: Count
    memory_available_bytes: Count
    disk_free_bytes: Count
    disk_total_bytes: Count
    network_bytes_per_s: float = 0.0
    gpus: tuple[Gpu, ...] = ()


class RunningTask(Part):
    task: Name
    attempt: Count
    kind: Kind
    lane: Name
    for_s: Seconds
    done: float | None = None


class Heartbeat(Part):
    """`tel.<node>.heartbeat`, every 5 s."""

    node: Name
    boot: Name
    build: str
    contracts: str = Field(description="fingerprint of the messages that the agent knows")
    ephemeral: bool = False
    tags: tuple[str, ...] = ()
    kinds: tuple[str, ...] = Field(default=(), description="task kinds it takes; empty is all")
    machine: str = Field(default="", description="agents on one machine share one budget")
    seats: Count | None = Field(default=None, description="the operator's own limit")
    running: tuple[RunningTask, ...] = ()
    spooled: Count = 0
    spooled_bytes: Count = 0
    draining: bool = False
    notice: str = Field(default="", description="its machine will be taken away: who says so")
    notice_s: Seconds | None = Field(default=None, description="seconds until then")
    up_s: Seconds = 0.0
    loop_lag_s: Seconds = 0.0
    resources: Resources
    at: Instant | None = Field(default=None, description="the sender's own clock")


class ServiceBeat(Part):
    """`tel.svc-<service>-<replica>.heartbeat`, every 5 s."""

    service: Name
    replica: Name
    build: str
    contracts: str
    leader: bool
    position: Count
    log_end: Count
    handled: Count
    failed: Count
    redelivered: Count = 0
    loop_lag_s: Seconds
    up_s: Seconds
    rss_bytes: Count = 0
    settings_hash: str = ""
    handler_s: Seconds = Field(default=0.0, description="how long its handlers may take now")
    handler_least_s: Seconds = Field(default=0.0, description="what the service declares: the least limit")
    measured: Count = Field(
        default=0, description="handlers that succeeded, or ran into the limit, since the process began"
    )
    within: Count = Field(default=0, description="those of them that took at most .8 of the limit")
    at: Instant | None = Field(default=None, description="the sender's own clock")
    stuck: str = Field(default="", description="the fact of the log that this build can't apply, and what to do")


class Stalled(Part):
    """A consumer of which nobody pulls, or that waits for too many answers."""

    consumer: Name
    stream: Name
    waiting: Count
    unanswered: Count
    limit: Count
    pulled: bool
    for_s: Seconds


class Consumers(Part):
    """`tel.svc-health-<replica>.consumers`: what stalls, every 5 s."""

    stalled: tuple[Stalled, ...] = ()


class TaskProgress(Part):
    """`tel.<node>.progress`: what a child's progress line said last."""

    node: Name
    task: Name
    lane: Name
    kind: Kind
    done: float
    of: float


AnyReading = Heartbeat | ServiceBeat | TaskProgress | Consumers
READINGS: dict[str, type[AnyReading]] = {
    "heartbeat": Heartbeat,
    "beat": ServiceBeat,
    "progress": TaskProgress,
    "consumers": Consumers,
}
