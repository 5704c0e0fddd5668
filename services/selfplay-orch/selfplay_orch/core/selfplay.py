"""Fills free seats with self-play: lanes take turns by their shares, tasks are sized by time."""

from __future__ import annotations

import math
from collections.abc import Iterable

from selfplay_orch.core.admission import SILENT, UNHEARD, Denial, first_no, is_open, wish_for
from selfplay_orch.core.cluster import Lane, Node
from selfplay_orch.core.index import BENCHED, Wish
from selfplay_orch.core.look import Look
from selfplay_orch.core.placement import deny, placement
from selfplay_orch.core.shares import FEW_GAMES, quota
from sparring.contracts.parts import TaskSpec, Term
from sparring.decider import Action
from sparring.task_specs import task_spec

KIND = "selfplay"
# full or gone is how a node usually is: health's facts and the running tasks say it
USUAL = ("capacity", "node limit")
OF_A_LANE = ("back-pressure", "breaker")


class Turns:
    """Whose turn it is: start-time fair queueing, where a placement costs the lane its task's time over its share.

    A lane with share s waits for at most about 1/s placements; one that comes back does not catch up.
    """

    def __init__(self, look: Look, lanes: dict[str, Lane]) -> None:
        self._look, self._lanes = look, lanes
        self._clock = look.all.clock
        self._served = {name: lane.served for name, lane in lanes.items()}
        self._most = max(1, math.ceil(quota(len(lanes)) * look.seats))

    def order(self) -> list[str]:
        """Lanes below their quota of the seats; of these those with few games, then whoever was served least for its
        share."""

        def key(name: str) -> tuple[bool, bool, float, int, str]:
            lane = self._lanes[name]
            over = self._look.lane_seats[name] >= self._most
            # games that sync holds back are not played again and again
            enough = max(lane.games, lane.played) >= FEW_GAMES
            return over, enough, max(self._clock, self._served[name]), lane.games, name

        return sorted(self._lanes, key=key)

    def served(self, name: str) -> None:
        spec = self._lanes[name].spec
        self._clock = max(self._clock, self._served[name])
        self._served[name] = self._clock + (spec.task_target_s if spec else 1.0) / self._look.picture.share(name)


def fill(look: Look) -> Iterable[Action]:
    """One task per node and round, until nothing is free or the call has placed enough; what all lanes and all silent nodes
    are told is said once."""
    yield from _stopped(look)
    silent: list[Denial] = []
    yield from _rounds(look, silent)
    if silent:
        longest = max(silent, key=lambda one: one.actual)
        yield from deny(look, KIND, "", "", longest, _counted(look))


def _rounds(look: Look, silent: list[Denial]) -> Iterable[Action]:
    lanes = {name: lane for name, lane in look.all.lanes.items() if lane.wants}
    if not lanes:
        return
    turns = Turns(look, lanes)
    look.index.wake(look.now, look.all.nodes)
    open_ = [name for _, name in look.index.open.ordered if name not in look.held]
    serial = 0
    while open_ and not look.full:
        still: list[str] = []
        for node_name in open_:
            if look.full:
                return
            choice, denial = _choose(look, turns, lanes, node_name)
            if not choice:
                if denial is not None and denial.reason in SILENT:
                    silent.append(denial)
                elif denial is not None and denial.reason not in USUAL:
                    yield from deny(look, KIND, "" if denial.everywhere else node_name, "", denial)
                if denial is not None and denial.everywhere:
                    return
                if node_name not in look.taken.placed:
                    full = denial is not None and denial.reason in USUAL
                    look.index.bench(node_name, look.now, None if full else look.now + BENCHED)
                continue
            serial += 1
            name = f"{choice}-s{look.ctx.read_to}-{serial}"
            yield placement(look, name, _spec(look, name, lanes[choice], look.all.nodes[node_name]), None, node_name)
            turns.served(choice)
            still.append(node_name)
        open_ = sorted(still, key=lambda name: (len(look.taken.get(name)) / max(1, look.all.nodes[name].seats), name))


def _counted(look: Look) -> tuple[Term, ...]:
    """How many usable nodes are silent, whether this call asked them or not."""
    silent = sum(look.fresh(name) is None for name in look.index.usable)
    return (Term(name=f"nodes: {UNHEARD}", value=silent),)


def _stopped(look: Look) -> Iterable[Action]:
    for name, lane in look.all.lanes.items():
        if lane.plays and lane.factor(KIND) <= 0:
            yield from deny(look, KIND, "", name, Denial("back-pressure", 0.0, 0.0))
        breaker = lane.breakers.get(KIND)
        if breaker is not None and lane.wants and is_open(look, breaker, 0):
            failures = Denial("breaker", float(breaker.failures), float(breaker.limit))
            yield from deny(look, KIND, "", name, failures)


def _choose(look: Look, turns: Turns, lanes: dict[str, Lane], node_name: str) -> tuple[str, Denial | None]:
    node = look.all.nodes[node_name]
    if look.fresh(node_name) is None:
        # every lane is told the same there
        return "", first_no(look, Wish(KIND), node_name, node)
    first: Denial | None = None
    for name in turns.order():
        spec = lanes[name].spec
        denial = first_no(look, wish_for(KIND, spec) if spec else Wish(KIND, name), node_name, node)
        if denial is None:
            return name, None
        if denial.everywhere or denial.reason in USUAL:
            return "", denial
        if denial.reason not in OF_A_LANE:
            first = first or denial
    return "", first


def _least_s(look: Look) -> float:
    """Shorter tasks would leave seats idle, because the spawn rate could not fill them; with a quarter to spare."""
    return 1.25 * 60 * look.seats / look.spawns_per_minute


def _spec(look: Look, task: str, lane: Lane, node: Node) -> TaskSpec:
    assert lane.spec is not None
    target_s = max(lane.spec.task_target_s, _least_s(look))
    if node.ephemeral:
        target_s = min(target_s / 2, look.life_left(node) / 2)
    games = look.picture.durations.games_for(
        lane.spec.name, node.node_class, target_s, lane.spec.iteration.games_per_task
    )
    return task_spec(
        lane.spec, KIND, task, timeout_s=max(look.settings.kind(KIND).timeout_s, 10 * lane.spec.task_target_s),
        work={"games": games}, inputs={"model": (lane.model,)} if lane.model else {}, iteration=lane.iteration,
        model=lane.model.sha256 if lane.model else "",
    )  # fmt: skip
