"""One controller per node, a step every 30 s: seats follow the machine's load; agents on one machine share its budget."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import partial

from health.core.beats import Heard
from health.core.capacity import AHEAD_S, SET_POINT, STEP_S, Controller
from health.core.node import Node
from health.core.nodes import sharing, together
from health.core.picture import HealthPicture
from health.core.seats import class_seats
from sparring.contracts.health import CapacityRetargeted
from sparring.contracts.parts import Term
from sparring.contracts.readings import Heartbeat
from sparring.decider import Action, Context

# above the class's seats only as far as a machine can be underrated
MOST = 2


def capacity(ctx: Context, picture: HealthPicture, beats: Heard) -> Iterable[Action]:
    agents = sharing(ctx, picture, beats)
    moves = {}
    for name, (one, age_s) in beats.nodes.items():
        node = picture.all.nodes.get(name)
        if node is None or node.state != "healthy" or node.boot != one.boot or age_s > ctx.settings.suspect_s:
            continue
        fact = shared(name, node, one, agents) or stepped(ctx, picture, name, node, one, age_s)
        if fact is not None:
            moves[name] = partial(_unless_moved, fact)
    yield from together(moves)


def load_of(beat: Heartbeat) -> float:
    """How busy the machine is: its busiest resource, the mean of its cards or its cores, in [0, 1]."""
    found = beat.resources
    cards = [gpu.utilisation for gpu in found.gpus if gpu.utilisation is not None]
    return min(1.0, max(found.cpu_share, sum(cards) / len(cards) if cards else 0.0))


def shared(name: str, node: Node, beat: Heartbeat, agents: Counter[str]) -> CapacityRetargeted | None:
    """An agent that came to a machine, or left it, divides the machine's budget anew."""
    many = max(1, agents[beat.machine or name])
    if many == node.sharing:
        return None
    terms = (Term(name="agents on the machine", value=float(many)),)
    return CapacityRetargeted(node=name, seats=class_seats(beat, many), before=node.seats, terms=terms, sharing=many)


def stepped(
    ctx: Context, picture: HealthPicture, name: str, node: Node, beat: Heartbeat, age_s: float
) -> CapacityRetargeted | None:
    """The controller's step, when it is due. A new process begins each controller at the present seats, and moves nothing
    before it has seen a whole step's load; while seats are free, more of them would change nothing."""
    begun = picture.controllers.get(name)
    if begun is None:
        picture.controllers[name] = Controller(float(node.seats), last_load=load_of(beat)), ctx.now
        return None
    controller, at = begun
    seconds = (ctx.now - at).total_seconds()
    if seconds < STEP_S:
        return None
    load = load_of(beat)
    most = MOST * node.class_seats if beat.seats is None else beat.seats
    if len(beat.running) < node.seats:
        most = min(most, node.seats)
    controller = controller.step(load, 1, max(1, most), seconds)
    seats = controller.seats(node.seats, load, 1, max(1, most))
    picture.controllers[name] = controller, ctx.now
    if seats == node.seats:
        return None
    terms = (
        Term(name="load", value=round(load, 3), limit=SET_POINT),
        Term(name=f"load in {AHEAD_S:.0f} s", value=round(controller.ahead, 3)),
        Term(name="output", value=round(controller.output, 3)),
        Term(name="integral", value=round(controller.integral, 3)),
        Term(name="running", value=float(len(beat.running))),
        Term(name="age s", value=round(age_s, 1)),
    )
    return CapacityRetargeted(node=name, seats=seats, before=node.seats, terms=terms)


def _unless_moved(fact: CapacityRetargeted, node: Node) -> Sequence[CapacityRetargeted]:
    return [fact] if node.seats == fact.before and node.state == "healthy" else []
