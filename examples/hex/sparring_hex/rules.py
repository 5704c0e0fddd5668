"""The rules of a game, from OpenSpiel, and how a position looks to the player to move."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyspiel
from numpy.typing import NDArray
from open_spiel.python.observation import make_observation

from sparring_hex.job import BadJob

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
State = Any  # pyspiel.State has no type stubs

# Which planes of OpenSpiel's observation hold the first and the second player's pieces.
PIECES: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "hex": ((5, 6, 7, 8), (0, 1, 2, 3)),
    "tic_tac_toe": ((2,), (1,)),
    "connect_four": ((0,), (1,)),
}


class Rules:
    """A two-player game of perfect information.

    `features` numbers describe a position, `actions` moves exist; both are as the player to move sees them. In Hex the
    player to move always joins north with south: the second player sees the board transposed. `seen[player]` maps a
    move as the player sees it to OpenSpiel's, and back.
    """

    def __init__(self, name: str, params: Mapping[str, Any]) -> None:
        """Raises BadJob for a game that is unknown or of another kind."""
        self.name, self.params = name, dict(params)
        try:
            self.game = pyspiel.load_game(name, dict(params))
        except pyspiel.SpielError as error:
            reason = re.sub(r"\s+", " ", str(error))[:200]
            raise BadJob(f"game = {name!r}, game_params = {dict(params)!r}: OpenSpiel says: {reason}") from error
        self._check()
        self.observation = make_observation(self.game)
        self.actions: int = self.game.num_distinct_actions()
        self.shape: tuple[int, ...] = tuple(self.game.observation_tensor_shape())
        side = self.shape[-1]
        self._pieces = PIECES.get(name) if name != "hex" or self.shape[-2] == side else None
        self.is_hex = name == "hex" and self._pieces is not None
        self.board = int(np.prod(self.shape[1:]))
        self.features: int = 2 * self.board if self._pieces else int(np.prod(self.shape)) + 1
        straight = np.arange(self.actions)
        transposed = straight.reshape(side, side).T.ravel() if self.is_hex else straight
        self.seen = np.stack([straight, transposed])
        cells = transposed if self.is_hex else np.arange(self.board)
        self._turned = np.concatenate([cells + self.board, cells])

    def _check(self) -> None:
        kind = self.game.get_type()
        fits = (
            self.game.num_players() == 2
            and kind.dynamics == pyspiel.GameType.Dynamics.SEQUENTIAL
            and kind.chance_mode == pyspiel.GameType.ChanceMode.DETERMINISTIC
            and kind.information == pyspiel.GameType.Information.PERFECT_INFORMATION
            and kind.utility == pyspiel.GameType.Utility.ZERO_SUM
        )
        if not fits:
            raise BadJob(
                f"game = {self.name!r}: this engine plays two-player zero-sum games without chance and with perfect "
                "information; choose such a game, or name a program of your own in the lane file"
            )

    def start(self) -> State:
        """The first position."""
        return self.game.new_initial_state()

    def look(self, states: Sequence[State]) -> tuple[Floats, Bools, Ints]:
        """Positions as the players to move see them: planes [n, features], legal moves [n, actions], players [n]."""
        raw = np.empty((len(states), int(np.prod(self.shape))), np.float32)
        tensor, set_from = self.observation.tensor, self.observation.set_from
        for row, state in enumerate(states):
            set_from(state, 0)
            raw[row] = tensor
        players = np.array([state.current_player() for state in states], np.int64)
        planes = self._planes(raw, players)
        if self.is_hex:
            return planes, planes[:, : self.board] + planes[:, self.board :] == 0, players
        legal = np.zeros((len(states), self.actions), np.bool_)
        for row, state in enumerate(states):
            legal[row, state.legal_actions()] = True
        return planes, legal, players

    def _planes(self, raw: Floats, players: Ints) -> Floats:
        if self._pieces is None:
            return np.concatenate([raw, players[:, None].astype(np.float32)], axis=1)
        cube = raw.reshape(len(raw), self.shape[0], self.board)
        planes = np.empty((len(raw), self.features), np.float32)
        for number, channels in enumerate(self._pieces):
            part = planes[:, number * self.board : (number + 1) * self.board]
            part[:] = cube[:, channels[0]]
            for channel in channels[1:]:
                part += cube[:, channel]
        second = players == 1
        planes[second] = planes[second][:, self._turned]
        return planes

    def rotation(self) -> tuple[Ints, Ints] | None:
        """Hex turned by 180 degrees is the same game: where each feature and each move comes from. Else None."""
        if not self.is_hex:
            return None
        back = np.arange(self.board)[::-1]
        return np.concatenate([back, back + self.board]), back.copy()
