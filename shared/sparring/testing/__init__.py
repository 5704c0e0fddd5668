"""The test kit: scenarios for cores, a real server per test, waiting for facts."""

from sparring.testing.beats import beating
from sparring.testing.scenario import Scenario, at, fold, given, recorded
from sparring.testing.server import declared, nats_cluster, nats_server
from sparring.testing.waiting import eventually

__all__ = [
    "Scenario",
    "at",
    "beating",
    "declared",
    "eventually",
    "fold",
    "given",
    "nats_cluster",
    "nats_server",
    "recorded",
]
