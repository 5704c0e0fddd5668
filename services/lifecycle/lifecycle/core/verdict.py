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
    limits, measured = bounds(rules.alpha, rules.beta), measure(counts)
    return Statistics(
        llr=llr(counts, rules.elo0, rules.elo1, rules.mode),
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
    found = statistics(counts, rules)
    if found is None:
        return Verdict("rejected", "no_games", None) if over else None
    limits = bounds(rules.alpha, rules.beta)
    state = state_of(found.llr, limits)
    if state == "accepted":
        return Verdict("passed", "accepted_h1", found)
    if state == "rejected":
        return Verdict("rejected", "accepted_h0", found)
    left = rules.max_pairs - found.pairs
    if over or left <= 0 or not can_still_pass(tuple(counts), left, rules.elo0, rules.elo1, rules.mode, limits):
        return Verdict("rejected", "inconclusive", found)
    return None


def again(fact: GateDecided) -> Verdict | None:
    """The verdict computed once more from nothing but the fact."""
    return verdict(fact.counts, fact.rules, over=fact.reason in ("inconclusive", "no_games"))
