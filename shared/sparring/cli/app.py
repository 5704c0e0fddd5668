"""The whole command line, put together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from sparring.cli import (
    control,
    diff,
    dlq,
    doctor,
    events,
    health,
    log,
    questions,
    rebuild,
    settings,
    slices,
    slots,
    sql,
    status,
    steps,
    up,
    why,
    work,
)
from sparring.cli.agent import agent
from sparring.cli.common import AsJson, At, Data, Nats
from sparring.cli.simulate import simulate
from sparring.cli.sprt import sprt
from sparring.cli.with_slot import with_slot

OfLane = Annotated[str, typer.Option("--lane", help="Only this lane's.")]
Everything = Annotated[bool, typer.Option("--all", help="Also all that are superseded or rejected.")]
HELP = "Sparring: a coordination plane for self-play training. One log; every command is a reader of it."
# in the order in which `spar --help` lists them
COMMANDS: tuple[Callable[..., None], ...] = (
    up.up, status.status, why.why, status.data, questions.datasets,
    health.health, health.services, questions.alarms, events.events, sql.sql, doctor.doctor, rebuild.rebuild, diff.diff,
    slices.export, sprt, simulate,
    settings.settings, control.pause, control.resume, control.halt, control.drain, control.boost, steps.step,
    steps.reject, control.rollback, steps.sync,
)  # fmt: skip


def lanes(context: typer.Context, nats: Nats = None, data: Data = None, at: At = None, as_json: AsJson = False) -> None:
    """Each lane: iteration, stage, what it waits for, games, model, Elo; `add FILE` registers lanes."""
    if context.invoked_subcommand is None:
        status.lanes(nats, data, at, as_json)


def nodes(context: typer.Context, nats: Nats = None, data: Data = None, at: At = None, as_json: AsJson = False) -> None:
    """Each node: state, seats, what it runs, its load; `forget` and `retire` take one out."""
    if context.invoked_subcommand is None:
        status.nodes(nats, data, at, as_json)


def models(
    context: typer.Context, nats: Nats = None, data: Data = None, at: At = None, as_json: AsJson = False,
    lane: OfLane = "", everything: Everything = False,
) -> None:  # fmt: skip
    """Each model: its gate's verdict, its rating in the lane's pool, what was measured of it; `get LANE` fetches one."""
    if context.invoked_subcommand is None:
        status.models(nats, data, at, as_json, lane, everything)


def build() -> typer.Typer:
    app = typer.Typer(help=HELP, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
    for command in COMMANDS:
        app.command()(command)
    # the agent has options of its own
    passed_on = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
    app.command(context_settings=passed_on)(agent)
    app.command(
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "allow_interspersed_args": False}
    )(slices.replay)
    of_lanes = typer.Typer(invoke_without_command=True)
    of_lanes.callback(invoke_without_command=True)(lanes)
    of_lanes.command("add")(control.add_lanes)
    app.add_typer(of_lanes, name="lanes")
    of_nodes = typer.Typer(invoke_without_command=True)
    of_nodes.callback(invoke_without_command=True)(nodes)
    of_nodes.command("forget")(control.forget_node)
    of_nodes.command("retire")(control.retire_node)
    app.add_typer(of_nodes, name="nodes")
    # what follows `--` is another program's command line
    with_command = {"allow_extra_args": True, "ignore_unknown_options": False}
    app.command("submit", context_settings=with_command)(work.submit)
    app.command("with-slot", context_settings=with_command)(with_slot)
    of_models = typer.Typer(invoke_without_command=True)
    of_models.callback(invoke_without_command=True)(models)
    of_models.command("get")(work.get_model)
    app.add_typer(of_models, name="models")
    app.add_typer(work.tasks_app, name="tasks")
    app.add_typer(work.record_app, name="record")
    app.add_typer(slots.app, name="slots")
    app.add_typer(dlq.app, name="dlq")
    app.add_typer(log.app, name="log")
    return app
