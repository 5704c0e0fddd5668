"""`spar up`: the server, all services, a few agents and some lanes on this machine, with one live screen."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Annotated, Any

import nats
import typer

from sparring.catalogue import services
from sparring.cli import overview
from sparring.cli.common import Rows, table
from sparring.cli.screen import Look, Screen
from sparring.client import Client
from sparring.connection import close
from sparring.contracts.lanes import LaneSpec
from sparring.contracts.pipeline import RegisterLane
from sparring.ending import CalledOff, comes, ended, unless
from sparring.errors import BadInput, LogUnavailable
from sparring.lane_file import load_lanes
from sparring.log.interface import Raw
from sparring.place import Place, recall, remember
from sparring.reader import Reader, connect
from sparring.server import EmbeddedServer, alive, end_left_over
from sparring.supervisor import Child, Supervisor
from sparring.topology import declare_topology

LEAST_DISK = 1024**3
DEFAULT_LANES = Path("examples/hex/lanes.toml")
LOOK_S = 1.0
PROMOTIONS = (
    "select lane, g.gate, candidate model, number from lifecycle_gates g join lifecycle_models m using (lane) "
    "where m.model = g.candidate and verdict = 'passed' and purpose = 'gate' order by decided_at"
)
LOCAL_CACHE_BYTES = 50 * 1024**2
# one machine's disk holds everything several times: old games go after minutes instead of half an hour
LOCAL_KEEP = {"SPARRING_SYNC__KEEP_S": "300"}
BY_HAND = {"SPARRING_HEALTH__AUTOMATIC": "false"}


@dataclass
class Run:
    """What this `spar up` owns, to be given back in the opposite order."""

    data: Path
    screen: Screen
    supervisor: Supervisor
    server: EmbeddedServer | None
    place: Place
    stopping: bool = False
    agents: list[str] = field(default_factory=list)


def up(
    data: Annotated[Path, typer.Option(help="Where everything is kept.", envvar="SPARRING_DATA")] = Path(".sparring"),
    agents: Annotated[int, typer.Option(min=0, help="Node agents on this machine.")] = 2,
    lanes: Annotated[Path, typer.Option(help="Lane file to register.")] = DEFAULT_LANES,
    once: Annotated[int, typer.Option(min=0, help="End after that many promotions, with a table.")] = 0,
    url: Annotated[str | None, typer.Option("--nats", help="Use this running server instead of an own one.")] = None,
    manual: Annotated[
        bool, typer.Option("--manual", help="People take every step behind sync, and the cluster's switch.")
    ] = False,
) -> None:
    """Starts the whole loop here; Ctrl-C drains it, the next `spar up` goes on from the log."""
    specs = _specs(lanes, manual)
    with _own(data) as _:
        server = None if url else _server(data)
        place = Place(url or (server.address.url if server and server.address else ""), str(data))
        head = _head(place, data)
        with Screen(head) as screen:
            run = Run(data, screen, Supervisor(screen.say), server, place)
            promotions: Rows = []
            try:
                asyncio.run(_declare(place))
                _start_children(run, agents, manual)
                promotions = asyncio.run(_watch(run, specs, once))
            finally:
                _drain(run)
        if once:
            table(promotions, ("lane", "number:no", "gate", "model", "elo_text:Elo (95 %)"), "Promotions")


def _specs(lanes: Path, manual: bool) -> list[LaneSpec]:
    specs = load_lanes(lanes)
    by_hand = {spec.name: tuple(step for step in spec.auto if step == "sync") for spec in specs}
    return [spec.model_copy(update={"auto": by_hand[spec.name]}) for spec in specs] if manual else specs


@contextlib.contextmanager
def _own(data: Path) -> Iterator[IO[str]]:
    """The folder belongs to one `spar up` at a time, and has room."""
    try:
        data.mkdir(parents=True, exist_ok=True)
        lock = (data / "lock").open("w")
    except OSError as error:
        raise BadInput(f"--data {data}: {error.strerror}; name a folder that you may write to") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise BadInput(
                f"--data {data} is in use by another `spar up`; stop that one or name another folder"
            ) from error
        free = shutil.disk_usage(data).free
        if free < LEAST_DISK:
            raise BadInput(
                f"--data {data}: {free / 2**20:.0f} MiB of disk left; 1 GiB is the least, free some or move it"
            )
        yield lock


def _server(data: Path) -> EmbeddedServer:
    known = recall(data)
    port = int(known["url"].rpartition(":")[2]) if known else -1
    end_left_over(data)
    # agents on other machines and open terminals find the server where it was
    if known and alive(known["url"]):
        port = -1
    server = EmbeddedServer(data.resolve(), port=port)
    address = server.start(say=typer.echo)
    remember(data, address.url, address.monitoring, address.pid)
    return server


def _head(place: Place, data: Path) -> list[str]:
    return [
        f"Sparring in {data}; server {place.url}",
        f"look at the log with: nats --server {place.url} stream view EVENTS; why a lane waits with: spar why LANE",
    ]


async def _declare(place: Place) -> None:
    nc = await connect(place, name="spar up")
    try:
        for drift in await declare_topology(nc):
            raise BadInput(f"{drift}; set it back with `nats stream edit`, or start in an empty --data folder")
    finally:
        await close(nc)


def _start_children(run: Run, agents: int, manual: bool) -> None:
    logs, url = run.data / "logs", run.place.url
    for service in services():
        argv = [sys.executable, "-m", service.package, "--nats", url, "--data", str(run.data / "services")]
        run.supervisor.add(Child(service.name, argv, logs / f"{service.name}.log", _defaults(manual)))
    for number in range(1, agents + 1):
        name = f"node-{number}"
        folder = run.data / "nodes" / name
        argv = [sys.executable, "-m", "node_agent", "--nats", url, "--node", name, "--data", str(folder),
                "--cache-bytes", str(LOCAL_CACHE_BYTES)]  # fmt: skip
        run.supervisor.add(Child(name, argv, logs / f"{name}.log"))
        run.agents.append(name)


def _defaults(manual: bool) -> dict[str, str]:
    """What this machine's services get unless the environment says otherwise."""
    wanted = LOCAL_KEEP | (BY_HAND if manual else {})
    return {name: value for name, value in wanted.items() if name not in os.environ}


async def _watch(run: Run, specs: Sequence[LaneSpec], once: int) -> Rows:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for signum in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(signum, stop.set)
    async with Client(run.place.url, outbox=run.data / "outbox") as client:
        for spec in specs:
            await client.send(RegisterLane(lane=spec.name, spec=spec))
    nc = await nats.connect(run.place.url.split(","), name="spar up screen", max_reconnect_attempts=-1,
                            error_cb=_once_each(run.screen.say))  # fmt: skip
    try:
        reader = await unless(stop, Reader.over(nc, _emptied(run.data / "screen")))
    except CalledOff:
        await close(nc)
        return []
    fresh = list[Raw]()
    following = asyncio.create_task(_follow(reader, fresh))
    try:
        return await _redraw(run, reader, stop, once, following, fresh)
    finally:
        await ended(following)
        await reader.close()


def _once_each(say: Callable[[str], None]) -> Callable[[Exception], Awaitable[None]]:
    """Says what a connection hears of its troubles; the same one again is no news."""
    last: list[str] = []

    async def heard(error: Exception) -> None:
        text = str(error) or type(error).__name__
        if [text] != last:
            last[:] = [text]
            say(f"connection: {text}")

    return heard


def _emptied(folder: Path) -> Path:
    """Tables of a screen that was killed are nobody's."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


async def _follow(reader: Reader, fresh: list[Raw]) -> None:
    """What comes is taken in with the next look: each taking in is a write to disk."""
    async for batch in reader.log.follow(reader.projection.position):
        fresh += batch


async def _redraw(
    run: Run, reader: Reader, stop: asyncio.Event, once: int, following: asyncio.Task[None], fresh: list[Raw]
) -> Rows:  # fmt: skip
    start = _promotions(reader)
    before, then = 0, time.monotonic()
    rate = 0.0
    while not stop.is_set():
        if following.done():
            # what it raised is the reason; a screen that stands still would hide it
            following.result()
            raise LogUnavailable("the log is not followed any more: the connection was closed for good")
        run.supervisor.look()
        await _revive_server(run, stop)
        if fresh:
            batch, fresh[:] = list(fresh), []
            reader.take(batch)
        look = await _look(run, reader)
        now = time.monotonic()
        sequence = reader.projection.position
        rate = 0.7 * rate + 0.3 * (sequence - before) / max(0.001, now - then) if before else 0.0
        before, then, look.facts_per_s = sequence, now, rate
        run.screen.show(look)
        if once and _promotions(reader) - start >= once and sequence >= await _end(reader):
            return _promoted(reader, start)
        await comes(stop, LOOK_S)
    return []


async def _revive_server(run: Run, stop: asyncio.Event) -> None:
    """It may read its log back for minutes: whoever stops `spar up` meanwhile does not wait for that."""
    server = run.server
    if server is None or server.process is None or server.process.poll() is None:
        return
    run.screen.say("the server ended; it is started again on its data")
    server.port = int(server.address.url.rpartition(":")[2]) if server.address else -1
    starting = asyncio.create_task(asyncio.to_thread(server.start, say=run.screen.say))
    with contextlib.suppress(CalledOff):
        await unless(stop, asyncio.wait((starting,)))
    while not starting.done():
        await asyncio.to_thread(server.stop)
        await asyncio.wait((starting,), timeout=0.1)
    if stop.is_set():
        # ended by us, with its own words for it
        await asyncio.gather(starting, return_exceptions=True)
        return
    fresh = await starting
    remember(run.data, fresh.url, fresh.monitoring, fresh.pid)


async def _end(reader: Reader) -> int:
    with contextlib.suppress(LogUnavailable):
        return await reader.log.end()
    return sys.maxsize


async def _look(run: Run, reader: Reader) -> Look:
    readings: Any = {}
    with contextlib.suppress(LogUnavailable):
        readings = await reader.readings()
    notes = list(run.supervisor.alarms.values())
    free = shutil.disk_usage(run.data).free
    if free < 2 * LEAST_DISK:
        notes.append(f"{free / 2**20:.0f} MiB of disk left in {run.data}: self-play pauses at 1 GiB; free some")
    return Look(overview.lanes(reader), overview.nodes(reader, readings), overview.counts(reader), notes=notes)


def _promotions(reader: Reader) -> int:
    return int(reader.rows(f"select count(*) n from ({PROMOTIONS})")[0]["n"])


def _promoted(reader: Reader, after: int) -> Rows:
    """The promotions past the first so many, each with its model's rating now."""
    rated = overview.ratings(reader)
    rows = reader.rows(PROMOTIONS)[after:]
    for row in rows:
        rating = rated.get((row["lane"], row["model"]))
        row["elo_text"] = rating.text if rating else None
        row["model"] = row["model"][:12]
    return rows


def _drain(run: Run) -> None:
    """Agents first, so that services still hear their last reports; the server last.

    Another Ctrl-C in between would leave the server and half of the processes behind: each has its own time limit.
    """
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, signal.SIG_IGN)
    run.screen.say("draining: agents save what runs, then the services, then the server")
    run.supervisor.stop(run.agents, within_s=75)
    run.supervisor.stop(within_s=25)
    if run.server is not None:
        run.server.stop()
    run.screen.say(f"everything is on disk in {run.data}; `spar up` goes on from there")
