"""Services and nodes by their last beats: who is missing, who differs, whose clock, loop or tables stand wrong."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sparring.contracts import fingerprint
from sparring.contracts.parts import how_to_start
from sparring.contracts.readings import Heartbeat, ServiceBeat
from sparring.doctor.finding import Finding

SILENT_S, MOST_SKEW_S, MOST_LAG_S, MOST_BEHIND = 15.0, 2.0, 1.0, 5_000
LEAST_DISK = 0.05


@dataclass(frozen=True)
class Beat:
    """A beat as the server stored it: `stored_at` by the server's clock, `age_s` before the look."""

    data: Any
    stored_at: datetime
    age_s: float

    @property
    def skew_s(self) -> float | None:
        """The sender's clock minus the server's, the way between them included."""
        sent = self.data.at
        return None if sent is None else float((sent - self.stored_at).total_seconds())


def services_of(beats: Sequence[Beat]) -> Mapping[str, list[Beat]]:
    found: dict[str, list[Beat]] = defaultdict(list)
    for one in beats:
        if isinstance(one.data, ServiceBeat) and one.age_s < SILENT_S:
            found[one.data.service].append(one)
    return found


def processes(beats: Sequence[Beat], names: Sequence[str], planning: Sequence[str], end: int) -> Iterator[Finding]:
    """`names` are the services that must run, `planning` those with a planner; `end` is the log's last sequence."""
    alive = services_of(beats)
    for name in names:
        replicas = alive.get(name, [])
        if not replicas:
            yield Finding("critical", f"service {name}", "does not beat", how_to_start(name))
            continue
        yield from _replicas(name, replicas, name in planning)
        for one in replicas:
            yield from _service(one, end)
    nodes = [one for one in beats if isinstance(one.data, Heartbeat) and one.age_s < SILENT_S]
    for one in nodes:
        yield from _node(one)
    yield from _builds([*(one for replicas in alive.values() for one in replicas), *nodes])


def _replicas(name: str, replicas: Sequence[Beat], plans: bool) -> Iterator[Finding]:
    leaders = [one.data.replica for one in replicas if one.data.leader]
    if plans and not leaders:
        yield Finding("critical", f"service {name}", f"none of {len(replicas)} replicas leads: nothing is planned",
                      "the lease is free within 3 s; if it stays so, look at the bucket LEASES")  # fmt: skip
    if len(leaders) > 1:
        yield Finding("warning", f"service {name}", f"{' and '.join(sorted(leaders))} say that they lead",
                      "harmless, one of them is stale; if it stays so, check their clocks")  # fmt: skip
    if len({one.data.settings_hash for one in replicas}) > 1:
        yield Finding("warning", f"service {name}", "its replicas run with different settings",
                      "give all of them the same file and environment; `spar settings` shows values and origins")  # fmt: skip


def _service(beat: Beat, end: int) -> Iterator[Finding]:
    one = beat.data
    about = f"service {one.service}/{one.replica}"
    if one.stuck:
        yield Finding("critical", about, f"stands still: {one.stuck}",
                      "install the build that knows this fact; a broken table is rebuilt with `spar rebuild`")  # fmt: skip
    elif end - one.position > MOST_BEHIND:
        yield Finding("warning", about, f"has read to {one.position:,} of {end:,}",
                      "wait while it catches up; give the machine more cores if it does not")  # fmt: skip
    if one.loop_lag_s > MOST_LAG_S:
        yield Finding("warning", about, f"its event loop stood still for {one.loop_lag_s:.1f} s",
                      "give the machine more cores, or move agents off it")  # fmt: skip
    yield from _clock(about, beat)


def _node(beat: Beat) -> Iterator[Finding]:
    one = beat.data
    about = f"node {one.node}"
    if one.contracts != fingerprint():
        yield Finding("warning", about, "its agent knows other messages: it gets no work",
                      "install the same build there and start its agent again")  # fmt: skip
    free, total = one.resources.disk_free_bytes, one.resources.disk_total_bytes
    if total and free < LEAST_DISK * total:
        yield Finding("critical", about, f"{free / 2**30:.1f} GiB of disk left", "free disk space there")
    yield from _clock(about, beat)


def _clock(about: str, beat: Beat) -> Iterator[Finding]:
    skew = beat.skew_s
    if skew is not None and abs(skew) > MOST_SKEW_S:
        yield Finding(
            "warning", about, f"its clock and the server's differ by {skew:+.1f} s", "run a time service (chrony) there"
        )


def _builds(beats: Sequence[Beat]) -> Iterator[Finding]:
    """Version skew: what one build says another may not understand."""
    by_build: dict[str, list[str]] = defaultdict(list)
    for one in beats:
        name = one.data.service if isinstance(one.data, ServiceBeat) else one.data.node
        by_build[one.data.build].append(name)
        if isinstance(one.data, ServiceBeat) and one.data.contracts != fingerprint():
            yield Finding(
                "warning", f"service {name}", "knows other messages than this build", "deploy one build everywhere"
            )
    if len(by_build) > 1:
        text = "; ".join(f"{build}: {', '.join(sorted(set(names))[:5])}" for build, names in sorted(by_build.items()))
        yield Finding("warning", "builds", text, "deploy one build everywhere, agents included")
