"""Self-play: many games in flight, every move searched, finished games replaced until enough are begun."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from sparring_hex.games_file import Game, Seen
from sparring_hex.rules import Floats, Rules, State
from sparring_hex.search import Judge, Search

IN_FLIGHT = 64


@dataclass(frozen=True)
class Style:
    """How self-play explores."""

    simulations: int
    c_puct: float
    noise: float
    dirichlet_alpha: float
    temperature_plies: int
    opening_plies: int


@dataclass
class Running:
    """A game in flight."""

    number: int
    state: State
    game: Game = field(default_factory=Game)

    def play(self, move: int) -> None:
        """Plays OpenSpiel's move."""
        self.state.apply_action(move)
        self.game.moves.append(move)


def play_games(
    rules: Rules, judge: Judge, style: Style, games: int, seed: int, told: Callable[[int], bool]
) -> list[Game]:
    """Plays `games` games and returns the finished ones in the order they began.

    `told` hears after every move how many are finished; when it answers False, the games in flight are left.
    """
    rng = np.random.default_rng(seed)
    places = min(IN_FLIGHT, games)
    search = Search(rules, places, style.simulations, style.c_puct)
    flying = [begin(rules, number, style.opening_plies, rng) for number in range(places)]
    begun, finished = places, list[Running]()
    while flying:
        _move(flying, search, judge, style, rng)
        for place, one in enumerate(flying):
            if one.state.is_terminal():
                one.game.outcome = float(one.state.player_return(0))
                finished.append(one)
                if begun < games:
                    flying[place] = begin(rules, begun, style.opening_plies, rng)
                    begun += 1
        flying = [one for one in flying if not one.state.is_terminal()]
        if not told(len(finished)):
            break
    return [one.game for one in sorted(finished, key=lambda one: one.number)]


def begin(rules: Rules, number: int, plies: int, rng: np.random.Generator) -> Running:
    """A game after `plies` uniformly random moves, never one that ended in them."""
    while True:
        one = Running(number, rules.start())
        for _ in range(plies):
            legal = one.state.legal_actions()
            one.play(legal[int(rng.integers(len(legal)))])
            if one.state.is_terminal():
                break
        if not one.state.is_terminal():
            return one


def _move(flying: list[Running], search: Search, judge: Judge, style: Style, rng: np.random.Generator) -> None:
    noise = _noise(search.rules.actions, len(flying), style, rng)
    visits, values, planes, legal = search.run([one.state for one in flying], judge, noise, style.noise)
    best = visits.argmax(axis=1)
    share = np.cumsum(visits, axis=1)
    drawn = (share <= (rng.random(len(flying)) * share[:, -1])[:, None]).sum(axis=1)
    for place, one in enumerate(flying):
        ply, player = len(one.game.moves), one.state.current_player()
        one.game.seen.append(Seen(ply, player, planes[place], legal[place], visits[place], float(values[place])))
        chosen = drawn[place] if ply < style.temperature_plies else best[place]
        one.play(int(search.rules.seen[player, chosen]))


def _noise(actions: int, games: int, style: Style, rng: np.random.Generator) -> Floats:
    """Gamma draws; normalised over the legal moves they are a Dirichlet's."""
    drawn = rng.standard_gamma(style.dirichlet_alpha, (games, actions))
    return np.asarray(drawn + 1e-8, np.float32)
