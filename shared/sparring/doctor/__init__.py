"""The live system against the catalogue: what is wired, what runs, what is near a limit; every finding says what to do."""

from __future__ import annotations

from sparring.doctor.examination import Examination, broken_invariants, examine
from sparring.doctor.finding import SEVERITIES, Finding, exit_code
from sparring.doctor.wiring import unwired

__all__ = ["SEVERITIES", "Examination", "Finding", "broken_invariants", "examine", "exit_code", "unwired"]
