"""`spar slots`: who may train, who waits and why, who is held back; and the orders about it."""

from __future__ import annotations

import getpass
from dataclasses import asdict
from typing import Annotated, Any, get_args

import typer

from sparring.cli.common import AsJson, At, Data, Nats, footer, print_json, table, with_reader
from sparring.cli.control import order, revision
from sparring.contracts.training_slots import HoldLaneBack, LiftHoldBack, PreemptSlot, Severity
from sparring.errors import BadInput
from sparring.questions import ask
from sparring.reader import Reader

app = typer.Typer(invoke_without_command=True)
Lane = Annotated[str, typer.Argument(help="The lane.")]
Reason = Annotated[str, typer.Option(help="Why; stands in the fact.")]

HELD = """
select lane, holder, token, since, until, coalesce(asked_by || ': ' || asked_reason, '') asked, give_way_by
from slots_pool where state = 'held' order by since
"""
HOLDS = """
select lane, cause, severity, factor, reason, by_whom, until from slots_holds
where not lifted and until > $1 order by lane, cause
"""


@app.callback()
def slots(context: typer.Context, nats: Nats = None, data: Data = None, at: At = None, as_json: AsJson = False) -> None:
    """Who may train, under which fencing token, until when; who waits and why; who is held back."""
    if context.invoked_subcommand is not None:
        return

    async def answer(reader: Reader) -> dict[str, Any]:
        waiting = await ask(reader, "training-slots", "waits")
        return {
            "held": reader.rows(HELD),
            "waiting": [asdict(one) for one in waiting],
            "held_back": reader.rows(HOLDS, [reader.as_of.at]),
        }

    found, as_of = with_reader(nats, data, at, answer)
    if as_json:
        print_json(as_of, **found)
        return
    table(found["held"], ("lane", "holder", "token", "since", "until", "asked:asked to give way by", "give_way_by:by"),
          "Training", empty="nobody")  # fmt: skip
    table(found["waiting"], ("place", "lane", "holder", "priority", "since", "why", "until"), "Waiting", empty="nobody")
    if found["held_back"]:
        table(found["held_back"], ("lane", "cause", "severity", "factor:turns", "reason", "by_whom:by", "until"),
              "Held back")  # fmt: skip
    footer(as_of)


@app.command()
def preempt(
    lane: Lane,
    reason: Reason = "",
    grace_s: Annotated[float | None, typer.Option(min=0, help="Seconds to write a checkpoint; default 60.")] = None,
    nats: Nats = None,
    data: Data = None,
) -> None:
    """Asks whoever trains the lane to write a checkpoint and give way; the training goes on under its next slot."""
    order(nats, data, PreemptSlot(lane=lane, by=getpass.getuser(), reason=reason or "by hand", grace_s=grace_s))


@app.command()
def hold(
    lane: Lane,
    severity: Annotated[
        str, typer.Option(help="minor, moderate (0.8), low_quality (0.7) or severe (a pause).")
    ] = "severe",
    for_s: Annotated[float, typer.Option("--for", min=1, help="Seconds until it ends by itself.")] = 3600.0,
    reason: Reason = "",
    nats: Nats = None,
    data: Data = None,
) -> None:
    """Gives the lane fewer turns at training for a while, or none."""
    if severity not in get_args(Severity):
        raise BadInput(f"--severity {severity!r}: give one of {', '.join(get_args(Severity))}")
    order(nats, data, HoldLaneBack.model_validate({
        "lane": lane, "reason": reason or "by hand", "for_s": for_s, "severity": severity, "by": getpass.getuser(),
        "revision": revision()}))  # fmt: skip


@app.command()
def lift(
    lane: Lane,
    cause: Annotated[str, typer.Option(help="Which hold: operator, regression, data quality.")] = "operator",
    reason: Reason = "",
    nats: Nats = None,
    data: Data = None,
) -> None:
    """Ends a hold before its time."""
    order(nats, data, LiftHoldBack(lane=lane, cause=cause, by=getpass.getuser(), reason=reason, revision=revision()))
