"""The log: one total order of facts, with two homes that behave alike."""

from sparring.log.interface import Expect, Log, Outgoing, Raw
from sparring.log.jetstream import JetStreamLog
from sparring.log.memory import MemoryLog

__all__ = ["Expect", "JetStreamLog", "Log", "MemoryLog", "Outgoing", "Raw"]
