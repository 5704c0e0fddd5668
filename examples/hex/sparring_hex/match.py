"""Matches: every opening is played once from each seat, and a pair of games is one sample."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import pyspiel

from sparring_hex.rules import Rules, State
from sparring_hex.search import Judge, Search

PAIRS_AT_ONCE = 64
UCT_C = 1.4


class Player(Protocol):
    """Chooses moves for many positions at once."""

    def choose(self, states: Sequence[State]) -> list[int]:
        """OpenSpiel's move for each running game."""


class Searcher:
    """Plays the most visited move of a search without noise; of equals the first."""

    def __init__(self, rules: Rules, judge: Judge, simulations: int, c_puct: float) -> None:
        self.judge, self.search = judge, Search(rules, PAIRS_AT_ONCE * 2, simulations, c_puct)

    def choose(self, states: Sequence[State]) -> list[int]:
        """Searches all positions together."""
        visits, _, _, _ = self.search.run(states, self.judge)
        players = np.array([state.current_player() for state in states])
        moves: list[int] = self.search.rules.seen[players, visits.argmax(axis=1)].tolist()
        return moves


class RandomPlayer:
    """Plays any legal move."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def choose(self, states: Sequence[State]) -> list[int]:
        """Draws one legal move each."""
        return [int(self.rng.choice(state.legal_actions())) for state in states]


class Playouts:
    """OpenSpiel's UCT: random playouts, no network."""

    def __init__(self, rules: Rules, playouts: int, seed: int) -> None:
        evaluator = pyspiel.RandomRolloutEvaluator(1, seed)
        self.bot: Any = pyspiel.MCTSBot(
            rules.game, evaluator, UCT_C, playouts, 64, False, seed, False, pyspiel.ChildSelectionPolicy.UCT
        )

    def choose(self, states: Sequence[State]) -> list[int]:
        """Searches one position after the other."""
        return [int(self.bot.step(state)) for state in states]


@dataclass
class Score:
    """Pairs by the candidate's score, LL, LD and DL, LW and DD and WL, DW and WD, WW; `games` are the candidate's
    outcomes, first seat then second, of every whole pair."""

    counts: list[int] = field(default_factory=lambda: [0] * 5)
    games: list[tuple[float, float]] = field(default_factory=list)

    def add(self, first: float, second: float) -> None:
        """Counts a pair; outcomes are -1, 0 or 1 for the candidate."""
        self.counts[round(first + second) + 2] += 1
        self.games.append((first, second))

    def share(self) -> float:
        """The candidate's points a game, 0 to 1."""
        return sum(points * number for points, number in enumerate(self.counts)) / max(4 * sum(self.counts), 1)


def play_match(
    candidate: Player, baseline: Player, starts: Sequence[State], told: Callable[[Score], bool]
) -> Score:  # fmt: skip
    """Plays every opening from both seats.

    `told` hears the cumulative score after every round of moves; when it answers False the match ends, and whole pairs
    count.
    """
    score = Score()
    for begin in range(0, len(starts), PAIRS_AT_ONCE):
        chunk = starts[begin : begin + PAIRS_AT_ONCE]
        games = [start.clone() for start in chunk for _ in range(2)]  # game 2i: the candidate has the first seat
        for _ in _rounds(games, candidate, baseline):
            if not told(score):
                _count(score, games)
                return score
        _count(score, games)
        if not told(score):
            break
    return score


def _rounds(games: Sequence[State], candidate: Player, baseline: Player) -> Iterator[None]:
    """Plays one move in every running game, again and again."""
    while True:
        turns: tuple[list[State], list[State]] = ([], [])
        for number, state in enumerate(games):
            if not state.is_terminal():
                turns[int(state.current_player() != number % 2)].append(state)
        if not any(turns):
            return
        for player, states in zip((candidate, baseline), turns, strict=True):
            if states:
                for state, move in zip(states, player.choose(states), strict=True):
                    state.apply_action(move)
        yield


def _count(score: Score, games: Sequence[State]) -> None:
    for first, second in zip(games[::2], games[1::2], strict=True):
        if first.is_terminal() and second.is_terminal():
            score.add(first.player_return(0), second.player_return(1))
