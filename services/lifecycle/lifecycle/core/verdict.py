"""What the counts of a gate say: a pure function of the counts and the rules, so that asking again answers the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from sparring.contracts.lanes import GateRules
from sparring.contracts.lifecycle import GateDecided, Statistics
from sparring.statistics.elo import measure
from sparring.statistics.sprt import bounds, can_still_pass, llr, state_of

POLICY = "gsprt-1"
Reason = Literal["accepted_h1", "accepted_h0", "inconclusive", "no_games"]


class Verdict(NamedTuple):
    verdict: Literal["passed", "rejected"]
    reason: Reason
    statistics: Statistics | None


def statistics(counts: Sequence[int], rules: GateRules) -> Statistics | None:
    """The numbers that a verdict is reported with; None without games."""
    if sum(counts) == 0:
        return None
    return _reported(counts, rules, llr(counts, rules.elo0, rules.elo1, rules.mode))


def _reported(counts: Sequence[int], rules: GateRules, ratio: float) -> Statistics:
    limits, measured = bounds(rules.alpha, rules.beta), measure(counts)
    return Statistics(
        llr=ratio,
        lower=limits.lower,
        upper=limits.upper,
        elo=measured.elo,
        elo_low=measured.elo_low,
        elo_high=measured.elo_high,
        los=measured.los,
        pairs=sum(counts),
        games=measured.games,
    )


def verdict(counts: Sequence[int], rules: GateRules, *, over: bool = False) -> Verdict | None:
    """None while the test runs. `over` asks for a verdict on what has been played: undecided is rejected."""
    if sum(counts) == 0:
        return Verdict("rejected", "no_games", None) if over else None
    limits, ratio = bounds(rules.alpha, rules.beta), llr(counts, rules.elo0, rules.elo1, rules.mode)
    state, left = state_of(ratio, limits), rules.max_pairs - sum(counts)
    running = state == "running" and not over and left > 0
    if running and can_still_pass(tuple(counts), left, rules.elo0, rules.elo1, rules.mode, limits):
        return None
    # measured only now: most reports leave the test running
    found = _reported(counts, rules, ratio)
    if state == "accepted":
        return Verdict("passed", "accepted_h1", found)
    return Verdict("rejected", "accepted_h0" if state == "rejected" else "inconclusive", found)


def again(fact: GateDecided) -> Verdict | None:
    """The verdict computed once more from nothing but the fact."""
    return verdict(fact.counts, fact.rules, over=fact.reason in ("inconclusive", "no_games"))
