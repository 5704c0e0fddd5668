"""Openings for matches: random first moves, drawn from a seed, no position twice."""

from __future__ import annotations

import numpy as np

from sparring_hex.job import BadJob
from sparring_hex.rules import Rules, State

PATIENCE = 200  # draws in a row that were known before the openings get one ply longer
LONGEST_EXTRA = 4


def openings(rules: Rules, plies: int, seed: int, offset: int, wanted: int) -> list[State]:
    """The positions number `offset` to `offset + wanted` of the seed's endless-seeming row.

    Two tasks with disjoint ranges never share an opening. Positions that differ by a rotation of the board only are one
    opening. When the openings of `plies` moves run out, longer ones follow. Raises BadJob when those run out too.
    """
    rng = np.random.default_rng(seed)
    known: set[bytes] = set()
    drawn: list[State] = []
    length, failures = plies, 0
    while len(drawn) < offset + wanted:
        state = _draw(rules, length, rng)
        name = b"" if state.is_terminal() else _name(rules, state)
        if name and name not in known:
            known.add(name)
            drawn.append(state)
            failures = 0
            continue
        failures += 1
        if failures > PATIENCE:
            length, failures = length + 1, 0
            if length > plies + LONGEST_EXTRA:
                raise BadJob(
                    f"work.pairs = {wanted} from work.opening_offset = {offset}: this game has about {len(drawn)} "
                    f"openings of {plies} and more plies; ask for fewer pairs or raise the opening plies"
                )
    return drawn[offset:]


def _draw(rules: Rules, plies: int, rng: np.random.Generator) -> State:
    state = rules.start()
    for _ in range(plies):
        if state.is_terminal():
            break
        legal = state.legal_actions()
        state.apply_action(legal[int(rng.integers(len(legal)))])
    return state


def _name(rules: Rules, state: State) -> bytes:
    """A position's name, the same for both of a pair of rotations."""
    planes, _, players = rules.look([state])
    turn = rules.rotation()
    names = [planes[0].tobytes()] if turn is None else [planes[0].tobytes(), planes[0][turn[0]].tobytes()]
    name: bytes = min(names)
    return bytes(players.tolist()) + name
