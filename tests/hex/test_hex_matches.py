"""Matches: every opening once from each seat, never the same opening twice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from sparring_hex.job import BadJob
from sparring_hex.match import RandomPlayer, Score, play_match
from sparring_hex.openings import openings
from sparring_hex.rules import Rules, State

HEX = Rules("hex", {"board_size": 3})

Do = Callable[..., tuple[Path, dict[str, Any]]]


class Witness:
    """Plays the first legal move and remembers what it was asked, as (history, player)."""

    def __init__(self) -> None:
        self.asked: list[tuple[tuple[int, ...], int]] = []

    def choose(self, states: Sequence[State]) -> list[int]:
        self.asked += [(tuple(state.history()), state.current_player()) for state in states]
        return [state.legal_actions()[0] for state in states]


def name(state: State) -> tuple[str, str]:
    """A position and its rotation."""
    turned = HEX.start()
    for move in state.history():
        turned.apply_action(HEX.actions - 1 - move)
    return min(str(state), str(turned)), max(str(state), str(turned))


def test_openings_never_repeat_not_even_turned() -> None:
    drawn = [name(state) for state in openings(HEX, 2, seed=3, offset=0, wanted=100)]
    assert len(set(drawn)) == len(drawn) == 100


def test_tasks_of_one_gate_play_disjoint_parts_of_one_row_of_openings() -> None:
    row = [str(one) for one in openings(HEX, 2, seed=3, offset=0, wanted=60)]
    assert row[40:] == [str(one) for one in openings(HEX, 2, seed=3, offset=40, wanted=20)]
    assert row != [str(one) for one in openings(HEX, 2, seed=4, offset=0, wanted=60)]


def test_a_game_that_runs_out_of_openings_says_so() -> None:
    with pytest.raises(BadJob, match=r"work\.pairs = 1000 .* ask for fewer pairs"):
        openings(Rules("hex", {"board_size": 2}), 1, seed=1, offset=0, wanted=1000)


def test_pairs_swap_seats() -> None:
    starts = openings(HEX, 2, seed=1, offset=0, wanted=5)
    candidate = Witness()
    play_match(candidate, Witness(), starts, lambda _: True)
    plies = {tuple(start.history()) for start in starts}
    as_first = {history[:2] for history, player in candidate.asked if player == 0}
    as_second = {history[:2] for history, player in candidate.asked if player == 1}
    assert as_first == as_second == plies


def test_equal_players_share_every_pair() -> None:
    score = play_match(Witness(), Witness(), openings(HEX, 2, seed=1, offset=0, wanted=20), lambda _: True)
    assert score.counts == [0, 0, 20, 0, 0]


def test_pair_scores_are_counted_from_the_candidates_view() -> None:
    score = Score()
    for first, second in ((-1, -1), (-1, 0), (1, -1), (0, 0), (0, 1), (1, 1), (1, 1)):
        score.add(first, second)
    assert score.counts == [1, 1, 2, 1, 2]
    assert score.share() == pytest.approx((0 + 0.25 + 0.5 * 2 + 0.75 + 2) / 7)


def test_a_stopped_match_counts_whole_pairs_only() -> None:
    rounds = iter([True] * 6)
    starts = openings(HEX, 1, seed=1, offset=0, wanted=5)
    score = play_match(RandomPlayer(1), RandomPlayer(2), starts, lambda _: next(rounds, False))
    assert 0 < sum(score.counts) < 5
    assert sum(score.counts) == len(score.games)


def test_a_match_searches_without_chance(do: Do) -> None:
    work = {"pairs": 10, "openings_seed": 8, "opening_plies": 2, "simulations": 6}
    _, one = do("evaluate", work, seed=1, out="a")
    _, other = do("evaluate", work, seed=2, out="b")
    assert one["counts"] == other["counts"] == [0, 0, 10, 0, 0]
    assert one["games"] == 20
    assert one["settings"]["simulations"] == 6
    assert one["settings"]["baseline"] == "generation0"


def test_uct_is_a_baseline(do: Do) -> None:
    _, evidence = do("evaluate", {"pairs": 3, "baseline_kind": "uct", "uct_playouts": 50})
    assert sum(evidence["counts"]) == 3
    assert evidence["settings"]["uct_playouts"] == 50
