"""The whole loop in one process: the services' own cores over a log in memory, simulated nodes, a virtual clock."""

from sparring.simulation.cluster import Cluster
from sparring.simulation.setup import Setup

__all__ = ["Cluster", "Setup"]
