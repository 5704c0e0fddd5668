"""The command line `spar`: one module per group of commands."""

from __future__ import annotations

import sys

import typer

from sparring.errors import BadInput, LogUnavailable


def build() -> typer.Typer:
    """The whole application; imported late, so that `spar --help` is quick."""
    from sparring.cli import control, dlq, doctor, events, health, questions, settings, sql, status, up, why
    from sparring.cli.agent import agent
    from sparring.cli.sprt import sprt

    app = typer.Typer(
        help="Sparring: a coordination plane for self-play training. One log; every command is a reader of it.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    lanes = typer.Typer(help="Lanes: what is trained.", invoke_without_command=True)

    @lanes.callback(invoke_without_command=True)
    def _lanes(
        context: typer.Context,
        nats: status.Nats = None,
        data: status.Data = None,
        at: status.At = None,
        as_json: status.AsJson = False,
    ) -> None:
        """Each lane: iteration, stage, what it waits for, games, model, Elo; `add FILE` registers lanes."""
        if context.invoked_subcommand is None:
            status.lanes(nats, data, at, as_json)

    lanes.command("add")(control.add_lanes)
    passed_on = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
    app.command(context_settings=passed_on)(agent)
    for command in (up.up, status.status, why.why):
        app.command()(command)
    app.add_typer(lanes, name="lanes")
    readers = (status.nodes, questions.tasks, status.models, status.data, questions.datasets, questions.slots)
    for command in (*readers, health.health, health.services, questions.alarms, settings.settings):
        app.command()(command)
    app.add_typer(dlq.app, name="dlq")
    for command in (events.events, sql.sql, doctor.doctor, sprt):
        app.command()(command)
    for command in (control.pause, control.resume, control.halt, control.drain, control.boost, control.rollback):
        app.command()(command)
    return app


def main() -> None:
    """Runs `spar`. Bad input: one sentence, exit code 2; no answer from the server: exit code 3."""
    try:
        build()()
    except BadInput as error:
        print(f"spar: {error}", file=sys.stderr)
        sys.exit(2)
    except LogUnavailable as error:
        print(f"spar: the server does not answer: {error}", file=sys.stderr)
        sys.exit(3)
