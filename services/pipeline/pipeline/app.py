"""The service `pipeline` as data."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from pipeline.core.by_hand import take_step
from pipeline.core.iteration import ITERATION
from pipeline.core.lane import LANE, pause, register, resume
from pipeline.core.picture import LoopPicture
from pipeline.core.plan import plan
from pipeline.read_models.lanes import LOOP
from pipeline.settings import Settings
from sparring.contracts.pipeline import IterationClosed, PauseLane, RegisterLane, ResumeLane, TakeStep
from sparring.decider import Command, Recorded
from sparring.service import Service


def iteration_span(recorded: Recorded) -> tuple[str, datetime, Mapping[str, Any]]:
    """The root of an iteration's trace, from its opening to its end."""
    closed = recorded.fact
    assert isinstance(closed, IterationClosed)
    start = recorded.at - timedelta(seconds=closed.seconds)
    attributes = {"outcome": closed.outcome, "reason": closed.reason, "model": closed.model, "games": closed.games}
    return "iteration", start, attributes


SERVICE = Service(
    name="pipeline",
    settings=Settings,
    commands=[
        Command(RegisterLane, LANE, register, mints=True),
        Command(PauseLane, LANE, pause, mints=True),
        Command(ResumeLane, LANE, resume, mints=True),
        Command(TakeStep, ITERATION, take_step),
    ],
    picture=LoopPicture,
    plan=plan,
    read_models=[LOOP],
    traces={IterationClosed: iteration_span},
)
