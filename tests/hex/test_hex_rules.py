"""How a position looks to the player to move."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparring_hex.job import BadJob
from sparring_hex.network import Network
from sparring_hex.rules import Rules
from sparring_hex.search import Search

HEX = Rules("hex", {"board_size": 4})
LAST = HEX.actions - 1


@settings(max_examples=40, deadline=None)
@given(st.permutations(range(HEX.actions)), st.integers(0, 6))
def test_rotation_maps_legal_moves_to_legal_moves(moves: list[int], plies: int) -> None:
    state, turned = HEX.start(), HEX.start()
    for move in moves[:plies]:
        state.apply_action(move)
        turned.apply_action(LAST - move)
    planes, legal, _ = HEX.look([state, turned])
    rotation = HEX.rotation()
    assert rotation is not None
    features, actions = rotation
    assert (planes[0][features] == planes[1]).all()
    assert (legal[0][actions] == legal[1]).all()


@settings(max_examples=40, deadline=None)
@given(st.permutations(range(HEX.actions)), st.integers(0, 5))
def test_a_move_as_its_player_sees_it_is_the_stone_that_the_other_one_sees_transposed(
    moves: list[int], plies: int
) -> None:
    state = HEX.start()
    for move in moves[:plies]:
        state.apply_action(move)
    _, legal, players = HEX.look([state])
    seen = int(np.flatnonzero(legal[0])[0])
    state.apply_action(int(HEX.seen[players[0], seen]))
    planes, _, _ = HEX.look([state])
    theirs = planes[0][HEX.board :].reshape(4, 4).T.ravel()
    assert theirs[seen] == 1


def test_both_players_see_themselves_join_north_with_south() -> None:
    for player, column in ((0, [0, 4, 8]), (1, [0, 1, 2])):
        state = HEX.start()
        others = [6, 7, 14, 15]
        for stone, other in zip(column, others, strict=False):
            for move in (stone, other) if player == 0 else (other, stone):
                state.apply_action(move)
        if player == 1:
            state.apply_action(others[3])
        planes, _, _ = HEX.look([state])
        assert planes[0][: HEX.board].reshape(4, 4)[:3, 0].tolist() == [1, 1, 1]


def test_other_games_have_no_symmetry_and_know_their_legal_moves() -> None:
    for name in ("tic_tac_toe", "connect_four", "breakthrough"):
        rules = Rules(name, {})
        state = rules.start()
        state.apply_action(state.legal_actions()[1])
        planes, legal, players = rules.look([state])
        assert rules.rotation() is None
        assert planes.shape == (1, rules.features)
        assert np.flatnonzero(legal[0]).tolist() == state.legal_actions()
        assert players.tolist() == [1]


def test_a_game_with_chance_is_refused_with_a_remedy() -> None:
    with pytest.raises(BadJob, match=r"game = 'backgammon'.*without chance"):
        Rules("backgammon", {})


def test_an_unknown_game_is_refused_by_name() -> None:
    with pytest.raises(BadJob, match="game = 'hexx'"):
        Rules("hexx", {})


def test_a_search_takes_a_win_in_one() -> None:
    rules = Rules("tic_tac_toe", {})
    network = Network(rules.features, rules.actions, 16)
    network.draw(0)
    state = rules.start()
    for move in (0, 3, 1, 4):
        state.apply_action(move)
    visits, values, _, _ = Search(rules, 1, 64, 1.5).run([state], network)
    assert visits[0].argmax() == 2
    assert values[0] > 0.5
    state.apply_action(8)
    visits, values, _, _ = Search(rules, 1, 64, 1.5).run([state], network)
    assert visits[0].argmax() == 5, "the second player wins by its own row"
    assert values[0] > 0.5
