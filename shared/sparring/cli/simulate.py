"""`spar simulate`: the whole loop on virtual time, with a report and a picture; under faults; one policy beside another."""

from __future__ import annotations

import contextlib
import gc
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from sparring.cli.common import AsJson, print_json, table
from sparring.errors import BadInput
from sparring.lane_file import load_lanes
from sparring.simulation.compare import compare, run
from sparring.simulation.machines import Churn
from sparring.simulation.pictures import write
from sparring.simulation.policies import DEFAULT, Policy, policies, policy
from sparring.simulation.real_log import Profile, profile
from sparring.simulation.report import report
from sparring.simulation.setup import COARSE, COARSE_SETTINGS, DAY, HOUR, Setup, lanes_for
from sparring.simulation.trial import SECONDS, Verdict, chaotic, faults_of, seeded, shrunk

Nodes = Annotated[int, typer.Option(min=1, help="Machines of mixed kinds.")]
Seats = Annotated[int, typer.Option(min=0, help="Seats per node; 0: by its class.")]
Days = Annotated[float, typer.Option(min=0, help="Virtual days.")]
Hours = Annotated[float, typer.Option(min=0, help="Virtual hours more.")]
Minutes = Annotated[float, typer.Option(min=0, help="Virtual minutes more; with --chaos: of each trial.")]
ChurnShare = Annotated[float, typer.Option("--churn", min=0, help="Share of the nodes that leave a day.")]
Seed = Annotated[int, typer.Option(help="Everything follows from it.")]
Seeds = Annotated[int, typer.Option(min=1, help="That many seeds, from --seed on: trials, or pairs of a comparison.")]
Lanes = Annotated[Path | None, typer.Option(help="Lane file; default: alpha and beta, as large as the cluster.")]
Policies = Annotated[list[str] | None, typer.Option("--policy", help="By name; given twice, both are compared.")]
RealLog = Annotated[Path | None, typer.Option(help="A log that `spar export` wrote: lanes, durations, failures.")]
Chaos = Annotated[bool, typer.Option("--chaos", help="A small cluster under faults; checks invariants.")]
OnlyFaults = Annotated[str, typer.Option("--faults", help="Only these numbers of the seed's schedule: 2,5.")]
Out = Annotated[Path, typer.Option(help="Folder for the pictures.")]


def simulate(
    nodes: Nodes = 50, seats: Seats = 1, days: Days = 0.0, hours: Hours = 0.0, minutes: Minutes = 0.0, churn: ChurnShare = 0.3,
    seed: Seed = 1, seeds: Seeds = 1, lanes: Lanes = None, policy_names: Policies = None, real_log: RealLog = None,
    chaos: Chaos = False, faults: OnlyFaults = "", out: Out = Path("."), as_json: AsJson = False,
) -> None:  # fmt: skip
    """The loop on virtual time, by the services' own cores: a report and a picture; or faults, or two policies."""
    seconds = days * DAY + hours * HOUR + 60 * minutes
    if chaos:
        _chaos(seed, seeds, faults, seconds or SECONDS, as_json)
        return
    if seconds <= 0:
        raise BadInput("--days 0 --hours 0: nothing would happen; say how long, for example --hours 12")
    chosen = [policy(name) for name in policy_names or [DEFAULT.name]]
    known = profile(real_log) if real_log is not None else None
    setup = Setup(
        seed=seed, nodes=nodes, seats=seats or None, churn=Churn(churn), pace=COARSE, settings=COARSE_SETTINGS,
        keep_log=False, watched=False, lanes=tuple(load_lanes(lanes)) if lanes is not None else lanes_for(nodes),
    )  # fmt: skip
    if known is not None:
        setup = known.setup(setup)
    if len(chosen) == 1:
        _one(setup, chosen[0], seconds, known, out, as_json)
    elif len(chosen) == 2:
        _two(setup, (chosen[0], chosen[1]), range(seed, seed + seeds), seconds, known, as_json)
    else:
        raise BadInput(f"--policy was given {len(chosen)} times: name one, or two to compare")


@contextlib.contextmanager
def _progress(title: str, quiet: bool) -> Iterator[Callable[[float], None]]:
    """A bar where a person looks; collecting garbage is left to the end of a run, which makes next to none."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (TextColumn(title), BarColumn(), TextColumn("{task.percentage:3.0f} %"), TimeElapsedColumn(),
               TimeRemainingColumn())  # fmt: skip
    collecting = gc.isenabled()
    gc.disable()
    try:
        with Progress(*columns, console=Console(file=sys.stderr), disable=quiet, transient=True) as bar:
            task = bar.add_task(title, total=1.0)
            yield lambda share: bar.update(task, completed=share)
    finally:
        if collecting:
            gc.enable()


def _one(
    setup: Setup, chosen: Policy, seconds: float, known: Profile | None, out: Path, as_json: bool
) -> None:  # fmt: skip
    orders = list(known.orders()) if known is not None else []
    with _progress(f"{setup.nodes} nodes, {seconds / HOUR:g} h", as_json) as progress:
        cluster = run(setup, chosen, seconds, orders, progress)
    found = report(cluster)
    image, page = write(cluster, found, out, f"simulation-{chosen.name}-{setup.seed}")
    if as_json:
        print_json(None, policy=chosen.name, picture=str(image), page=str(page), **found)
        return
    _show(found)
    typer.echo(f"picture: {image}   with details under the pointer: {page}")


def _show(found: dict[str, Any]) -> None:
    lost, recovery = found["games_lost"], found["recovery"]
    rows = [
        ("seats used", f"{found['utilisation']:.1%}"),
        ("games", f"{found['games']:,} ({found['games_per_hour']:,.0f} an hour), {lost:,} lost with their nodes"),
        ("work wasted", f"{found['wasted_share']:.2%} of the time that tasks ran"),
        ("promotions", f"{found['promotions']}, the strongest model has {found['elo']:.0f} true Elo"),
        ("fairness", f"{found['fairness']:.3f} (Jain's index of seat time), longest gap {found['starvation_s']:.0f} s"),
        ("nodes that left", f"{found['departures']}"),
        ("recovery", f"{recovery['orphaned']} tasks placed again, p50 {_s(recovery['p50_s'])}, "
                     f"p99 {_s(recovery['p99_s'])} after their node went"),
        ("cost", f"{found['cost']:,.2f}, {found['cost_per_million_games'] or 0:,.2f} a million games"),
    ]  # fmt: skip
    table([{"what": what, "value": value} for what, value in rows], ["what", "value:"],
          f"{found['nodes']} nodes, {found['hours']:g} h of virtual time, seed {found['seed']}")  # fmt: skip
    table(found["lanes"], ["lane", "games", "iterations", "promoted", "rejected", "failed", "elo:true Elo",
                           "longest_gap_s:longest gap s"], "Lanes")  # fmt: skip
    table(found["waits"], ["kind", "placed", "p50_s:p50 s", "p90_s:p90 s", "most_s:most s"], "Waits for a seat")
    reasons = [{"reason": reason, "said": said} for reason, said in found["reasons"].items()]
    table(reasons, ["reason", "said"], "Why something waited", empty="nothing was ever denied")


def _s(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f} s"


def _two(
    setup: Setup, chosen: tuple[Policy, Policy], seeds: range, seconds: float, known: Profile | None, as_json: bool
) -> None:  # fmt: skip
    orders = list(known.orders()) if known is not None else []
    with _progress(f"{chosen[0].name} and {chosen[1].name}, {len(seeds)} seeds", as_json) as progress:
        found = compare(setup, chosen, seeds, seconds, orders, progress)
    if as_json:
        print_json(None, first=chosen[0].name, second=chosen[1].name, seeds=len(seeds),
                   differences=[asdict(one) | {"clear": one.clear} for one in found])  # fmt: skip
        return
    rows = [
        {"measure": one.measure, "first": f"{one.first:.3f}", "second": f"{one.second:.3f}",
         "difference": f"{one.difference:+.3f}", "interval": f"[{one.low:+.3f}, {one.high:+.3f}]",
         "clear": one.clear}
        for one in found
    ]  # fmt: skip
    table(rows, ["measure", f"first:{chosen[0].name}", f"second:{chosen[1].name}", "difference",
                 "interval:95 % of the mean", "clear"], f"{len(seeds)} seeds, paired")  # fmt: skip
    typer.echo("\n".join(f"{one.name}: {one.text}" for one in policies().values() if one in chosen))


def _chaos(seed: int, seeds: int, faults: str, seconds: float, as_json: bool) -> None:
    """Exit code 1 when an invariant broke."""
    try:
        only = [int(one) for one in faults.split(",") if one]
    except ValueError as error:
        raise BadInput(f"--faults {faults}: numbers with commas between, for example 2,5") from error
    failed: list[Verdict] = []
    with _progress(f"{seeds} seeds under faults", as_json or seeds == 1) as progress:
        for number in range(seed, seed + seeds):
            verdict = seeded(number, only, seconds)
            if verdict.failed:
                failed.append(verdict)
                if not as_json:
                    _tell(verdict)
            progress((number - seed + 1) / seeds)
    if as_json:
        print_json(None, seeds=seeds, failed=[asdict(one) for one in failed])
    elif not failed:
        typer.echo(f"{seeds} seeds held every invariant for {seconds / 60:g} min each")
    if failed:
        raise typer.Exit(1)


def _tell(verdict: Verdict) -> None:
    """The line that shows it again, and the faults that it needs."""
    setup = chaotic(verdict.seed)
    everything = faults_of(setup, verdict.seconds)
    least = shrunk(setup, verdict.faults, verdict.seconds)
    typer.echo(f"seed {verdict.seed} broke {len(verdict.violations)}: {least.reproduce(len(everything))}")
    for fault in least.faults:
        typer.echo(f"  {fault}")
    for text in least.violations[:5]:
        typer.echo(f"  broken: {text}")
