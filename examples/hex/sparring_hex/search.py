"""PUCT over many games at once: one network call a simulation for all of them, the trees in flat arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from sparring_hex.rules import Bools, Floats, Ints, Rules, State

NEVER = np.float32(-1e9)


class Judge(Protocol):
    """What a search asks: chances of moves and a value, for the player to move."""

    def judge(self, planes: Floats, legal: Bools) -> tuple[Floats, Floats]:
        """Chances [n, actions] and values [n] of positions [n, features]."""


class Search:
    """Up to `games` trees of `simulations` + 1 nodes. Node k of tree g is row g * (simulations + 1) + k.

    Every node's moves are as its player to move sees them. First-play urgency is 0.
    """

    def __init__(self, rules: Rules, games: int, simulations: int, c_puct: float) -> None:
        self.rules, self.simulations, self.c_puct = rules, simulations, c_puct
        self.nodes = simulations + 1
        rows = games * self.nodes
        self.visits = np.zeros((rows, rules.actions), np.float32)
        self.mean = np.zeros((rows, rules.actions), np.float32)  # a move's value for the node's player
        self.prior = np.zeros((rows, rules.actions), np.float32)  # c_puct times the chance
        self.bonus = np.zeros((rows, rules.actions), np.float32)  # prior / (1 + visits)
        self.child = np.zeros((rows, rules.actions), np.int64)  # 0 where there is none
        self.count = np.ones(rows, np.float32)
        self.root = np.ones((rows, 1), np.float32)  # the square root of count
        self.player = np.zeros(rows, np.int64)
        self.sign = np.ones(rows, np.float32)
        self.ended = np.zeros(rows, np.bool_)
        self.value = np.zeros(rows, np.float32)  # for the first player
        self.states: list[State] = [None] * rows

    def run(
        self, states: Sequence[State], judge: Judge, noise: Floats | None = None, share: float = 0.0
    ) -> tuple[Floats, Floats, Floats, Bools]:
        """Searches from running games.

        `noise` [n, actions] takes a `share` of the root's chances.
        Returns visits [n, actions] and values [n] at the roots, and their planes and legal moves, all as the player to
        move sees them.
        """
        roots = np.arange(len(states)) * self.nodes
        planes, legal = self._grow(roots, states, judge)
        if noise is not None:
            mixed = noise * legal
            mixed *= self.c_puct / mixed.sum(axis=1, keepdims=True)
            self.prior[roots] = (1 - share) * self.prior[roots] + share * mixed
            self.bonus[roots] = self.prior[roots]
        for simulation in range(1, self.simulations + 1):
            self._simulate(roots, simulation, judge)
        visits = self.visits[roots]
        values = (visits * self.mean[roots]).sum(axis=1) / visits.sum(axis=1)
        return visits, values, planes, legal

    def _simulate(self, roots: Ints, simulation: int, judge: Judge) -> None:
        rows, moves, trees, ends = self._descend(roots)
        last_row, last_move, leaf = ends
        grown = leaf == 0
        leaf[grown] = roots[grown] + simulation
        self._expand(last_row[grown], last_move[grown], leaf[grown], judge)
        worth = self.value[leaf][trees] * self.sign[rows]
        visits = self.visits[rows, moves] + 1
        self.visits[rows, moves] = visits
        self.mean[rows, moves] += (worth - self.mean[rows, moves]) / visits
        self.bonus[rows, moves] = self.prior[rows, moves] / (1 + visits)
        self.count[rows] += 1
        self.root[rows, 0] = np.sqrt(self.count[rows])

    def _descend(self, roots: Ints) -> tuple[Ints, Ints, Ints, tuple[Ints, Ints, Ints]]:
        """Every tree's path as (rows, moves, trees), and its end: last row, last move, leaf row or 0."""
        trees, rows = np.arange(len(roots)), roots
        path: list[tuple[Ints, Ints, Ints]] = []
        last_row, last_move, leaf = np.empty_like(roots), np.empty_like(roots), np.zeros_like(roots)
        while rows.size:
            score = self.bonus.take(rows, axis=0)
            score *= self.root.take(rows, axis=0)
            score += self.mean.take(rows, axis=0)
            moves = score.argmax(axis=1)
            path.append((rows, moves, trees))
            last_row[trees], last_move[trees] = rows, moves
            child = self.child[rows, moves]
            leaf[trees] = child
            on = (child != 0) & ~self.ended[child]
            trees, rows = trees[on], child[on]
        all_rows, all_moves, all_trees = (np.concatenate(parts) for parts in zip(*path, strict=True))
        return all_rows, all_moves, all_trees, (last_row, last_move, leaf)

    def _expand(self, parents: Ints, moves: Ints, rows: Ints, judge: Judge) -> None:
        self.child[parents, moves] = rows
        played = self.rules.seen[self.player[parents], moves]
        live: list[State] = []
        live_rows: list[int] = []
        states = self.states
        for parent, move, row in zip(parents.tolist(), played.tolist(), rows.tolist(), strict=True):
            state = states[parent].clone()
            state.apply_action(move)
            if state.is_terminal():
                self.ended[row] = True
                self.value[row] = state.player_return(0)
            else:
                live.append(state)
                live_rows.append(row)
        if live:
            self._grow(np.array(live_rows), live, judge)

    def _grow(self, rows: Ints, states: Sequence[State], judge: Judge) -> tuple[Floats, Bools]:
        planes, legal, players = self.rules.look(states)
        chances, values = judge.judge(planes, legal)
        for row, state in zip(rows.tolist(), states, strict=True):
            self.states[row] = state
        self.prior[rows] = self.bonus[rows] = chances * np.float32(self.c_puct)
        self.mean[rows] = np.where(legal, np.float32(0), NEVER)
        self.visits[rows] = 0
        self.child[rows] = 0
        self.count[rows] = self.root[rows] = 1
        self.player[rows] = players
        self.sign[rows] = sign = 1 - 2 * players
        self.value[rows] = values * sign
        self.ended[rows] = False
        return planes, legal
