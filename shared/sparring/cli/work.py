"""Tasks by hand: what runs, what a user asks for, what is cancelled; and completions of programs that no agent runs."""

from __future__ import annotations

import asyncio
import getpass
import json
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any

import typer

from sparring.cli.common import AsJson, At, Data, Nats, check_lane, footer, print_json, table, with_reader
from sparring.cli.control import order
from sparring.client import Client, Recording, Submitted
from sparring.contracts.selfplay_orch import CancelTask
from sparring.errors import BadInput, CannotAnswer
from sparring.reader import Reader

tasks_app = typer.Typer(invoke_without_command=True)
record_app = typer.Typer(no_args_is_help=True, help="What programs of your own did: games, metrics, models.")

STATES = ("requested", "assigned", "started", "finished", "cancelled", "abandoned")
TASKS = """
select * from orch_tasks
where ($lane = '' or lane = $lane) and ($kind = '' or kind = $kind) and ($node = '' or node = $node)
    and ($state = '' or state = $state or ($state = 'open' and state in ('requested', 'assigned', 'started')))
order by last_sequence desc limit $most
"""
COLUMNS = (
    "task",
    "kind",
    "lane",
    "state",
    "node",
    "attempt",
    "requested_at:requested",
    "seconds",
    "by_whom:by",
    "reason",
)


@tasks_app.callback()
def tasks(
    context: typer.Context,
    nats: Nats = None,
    data: Data = None,
    at: At = None,
    as_json: AsJson = False,
    lane: Annotated[str, typer.Option(help="Only this lane's.")] = "",
    kind: Annotated[str, typer.Option(help="Only this kind.")] = "",
    state: Annotated[str, typer.Option(help=f"Only tasks that are {', '.join(STATES)}, or open.")] = "",
    node: Annotated[str, typer.Option(help="Only tasks of this node.")] = "",
    most: Annotated[int, typer.Option(min=1, help="How many, newest first.")] = 30,
) -> None:
    """The newest tasks: what runs where, and why what failed did. One of them in full: spar why TASK."""
    if context.invoked_subcommand is not None:
        return
    if state and state not in (*STATES, "open"):
        raise BadInput(f"--state {state!r}: give one of {', '.join(STATES)}, or open")

    async def ask(reader: Reader) -> list[dict[str, Any]]:
        check_lane(reader, lane)
        values = {"lane": lane, "kind": kind, "state": state, "node": node, "most": most}
        cursor = reader.projection.con.execute(TASKS, values)
        names = [str(column[0]) for column in cursor.description or []]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    rows, as_of = with_reader(nats, data, at, ask)
    if as_json:
        print_json(as_of, tasks=rows)
        return
    table(rows, COLUMNS, empty="no such task yet")
    footer(as_of)


@tasks_app.command()
def cancel(
    names: Annotated[list[str], typer.Argument(help="Tasks, as `spar tasks` names them.")],
    reason: Annotated[str, typer.Option(help="Why; stands in the fact.")] = "by hand",
    nats: Nats = None,
    data: Data = None,
) -> None:
    """Ends tasks wherever they stand: what runs gets SIGTERM and its grace time."""
    by = getpass.getuser()
    order(nats, data, *(CancelTask(task=name, reason=f"{by}: {reason}") for name in names))


def submit(
    context: typer.Context,
    kind: Annotated[str, typer.Argument(help="The kind of task; one of your own, or one of the lane file's.")],
    lane: Annotated[str, typer.Option(help="The lane it is for.")],
    with_input: Annotated[
        list[str] | None, typer.Option("--input", help="shards or model: what the log knows.")
    ] = None,
    work: Annotated[str, typer.Option(help="JSON that the job file will hold as `work`.")] = "{}",
    timeout_s: Annotated[float, typer.Option(min=0, help="Seconds it may run; 0: its kind's.")] = 0.0,
    attempts: Annotated[int, typer.Option(min=1, help="How often it is tried.")] = 3,
    expires_s: Annotated[float | None, typer.Option(min=0, help="Seconds it may wait for a seat.")] = None,
    gpu: Annotated[bool, typer.Option("--gpu", help="Needs a GPU.")] = False,
    task: Annotated[str, typer.Option(help="Its id; asked for again under the same one it is done once.")] = "",
    wait: Annotated[bool, typer.Option("--wait", help="Wait for its end; exit code 1 when it is given up.")] = False,
    as_json: AsJson = False,
    nats: Nats = None,
    data: Data = None,
) -> None:
    """Asks for a task: spar submit distill --lane hex5_2p --input shards -- python distil.py --job {job} --out {out}

    Without a command the lane file's `commands.<kind>` runs. The program gets a job file and an output folder, and prints
    one result line, like every program of a lane.
    """
    asked = _json(work)

    async def run() -> dict[str, Any]:
        async with Client(nats, data) as client:
            done: Submitted = await client.submit(
                kind, lane, context.args, work=asked, inputs=with_input or (), timeout_s=timeout_s, task=task,
                max_attempts=attempts, expires_s=expires_s, gpu=gpu,
            )  # fmt: skip
            told: dict[str, Any] = {"task": done.task, "sent": done.sent}
            if wait:
                finished = await client.wait(done.task)
                told |= {"node": finished.node, "seconds": finished.seconds, "evidence": finished.evidence,
                         "files": [file.model_dump() for file in finished.files]}  # fmt: skip
            return told

    told = _or_exit(run())
    if as_json:
        print_json(None, **told)
        return
    print(f"{told['task']} {told['sent']}; see: spar why {told['task']}")
    if wait:
        print(f"finished on {told['node']} after {told['seconds']:.1f} s: {json.dumps(told['evidence'])}")
        for file in told["files"]:
            print(f"  {file['role']:<12} {file['name']} {file['bytes']} bytes {file['url']}")


def _json(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise BadInput(f"--work {text!r} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise BadInput(f"--work {text!r}: give a JSON object")
    return found


def _or_exit(work: Coroutine[Any, Any, Any]) -> Any:
    from sparring.client import TaskEnded

    try:
        return asyncio.run(work)
    except TaskEnded as error:
        typer.echo(f"spar: {error}", err=True)
        raise typer.Exit(1) from error


@record_app.command()
def games(
    lane: Annotated[str, typer.Argument(help="The lane.")],
    file: Annotated[Path, typer.Argument(help="The file with the games.", exists=True, dir_okay=False)],
    games: Annotated[int, typer.Option(min=1, help="How many games it holds.")],
    positions: Annotated[int, typer.Option(min=1, help="How many positions.")],
    task: Annotated[str, typer.Option(help="Their cause; recorded again under the same one they count once.")] = "",
    model: Annotated[str, typer.Option(help="SHA-256 of the model that played; '' is generation 0.")] = "",
    as_json: AsJson = False,
    nats: Nats = None,
    data: Data = None,
) -> None:
    """Brings a batch of games to the store and records it."""

    async def run() -> Recording:
        async with Client(nats, data) as client:
            return await client.selfplay_complete(lane, file, games, positions, task=task, model=model)

    _told(asyncio.run(run()), as_json)


@record_app.command()
def metrics(
    lane: Annotated[str, typer.Argument(help="The lane.")],
    done: Annotated[float, typer.Option(min=0, help="How much is done, in steps or whatever `--of` counts.")],
    of: Annotated[float, typer.Option(min=0, help="Of how much.")],
    task: Annotated[str, typer.Option(help="The task; default: <lane>-train.")] = "",
    as_json: AsJson = False,
    nats: Nats = None,
    data: Data = None,
) -> None:
    """Says how far a training of your own is: a reading for the screens, not a fact. Exit code 4 when nobody hears it."""
    if not 0 <= done <= of or of == 0:
        raise BadInput(f"--done {done:g} --of {of:g}: give a part of a whole that is more than nothing")

    async def run() -> bool:
        async with Client(nats, data) as client:
            return await client.training_progress(lane, done, of, task=task)

    if not asyncio.run(run()):
        raise CannotAnswer("no server heard it, and a reading is not kept for later; see spar services")
    if as_json:
        print_json(None, lane=lane, done=done, of=of)
    else:
        print(f"{lane} {done:g} of {of:g}")


@record_app.command("model")
def record_model(
    lane: Annotated[str, typer.Argument(help="The lane.")],
    file: Annotated[Path, typer.Argument(help="The model's weights.", exists=True, dir_okay=False)],
    dataset: Annotated[str, typer.Option(help="SHA-256 of the data set that it learned from; see spar datasets.")],
    steps: Annotated[int, typer.Option(min=1, help="How many steps were trained.")],
    slot_token: Annotated[int, typer.Option(envvar="SPARRING_SLOT_TOKEN", min=1, help="The training slot's token.")],
    parent: Annotated[str, typer.Option(help="SHA-256 of the model it began from; '' is generation 0.")] = "",
    task: Annotated[str, typer.Option(help="Its cause.")] = "",
    as_json: AsJson = False,
    nats: Nats = None,
    data: Data = None,
) -> None:
    """Registers a model under the slot's token; a stale token is refused, as a fact. Its gate opens at once."""

    async def run() -> Recording:
        async with Client(nats, data) as client:
            return await client.training_complete(
                lane, file, {"steps": steps}, slot=slot_token, dataset=dataset, parent=parent, task=task
            )

    _told(asyncio.run(run()), as_json)


def _told(done: Recording, as_json: bool) -> None:
    if as_json:
        print_json(None, id=done.id, sent=done.sent)
    else:
        print(f"{done.id} {done.sent}")


def get_model(
    lane: Annotated[str, typer.Argument(help="The lane.")],
    out: Annotated[Path, typer.Option(help="A file, or a folder that exists.")],
    model: Annotated[str, typer.Option(help="The beginning of its hash; default: the one in production.")] = "",
    nats: Nats = None,
    data: Data = None,
    at: At = None,
    as_json: AsJson = False,
) -> None:
    """Fetches a model's weights; the hash is checked on the way."""

    async def run() -> tuple[Path, str]:
        async with Client(nats, data) as client:
            found = await client.model(lane, model, at)
            return await client.fetch(found, out), found.sha256

    file, sha256 = asyncio.run(run())
    if as_json:
        print_json(None, file=str(file), model=sha256)
    else:
        print(f"{file} {sha256}")
