"""Faults of all kinds, by seed: no invariant breaks. CI runs fifty small ones; SPARRING_SEEDS=1000 is the nightly size."""

from __future__ import annotations

import os

import pytest

from sparring.simulation.trial import chaotic, faults_of, seeded

SEEDS = int(os.environ.get("SPARRING_SEEDS", "50"))
SECONDS = float(os.environ.get("SPARRING_SEED_SECONDS", "360"))
PART = 10


@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("first", range(1, SEEDS + 1, PART))
def test_no_seed_breaks_an_invariant(first: int) -> None:
    for seed in range(first, min(first + PART, SEEDS + 1)):
        verdict = seeded(seed, seconds=SECONDS)
        everything = len(faults_of(chaotic(seed), SECONDS))
        assert not verdict.failed, f"{verdict.reproduce(everything)}: {verdict.violations[:3]}"
