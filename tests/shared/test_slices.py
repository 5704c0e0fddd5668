"""A piece of the log in a file answers as the cluster did, without one; what changed is told in sentences."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import nats
import pytest
import pytest_asyncio
import typer
from stories import spar, tell

from sparring.cli.app import build
from sparring.contracts.base import Fact
from sparring.contracts.health import AlarmRaised, NodeJoined, NodeLost
from sparring.contracts.lanes import LaneSpec
from sparring.contracts.parts import Check
from sparring.contracts.pipeline import IterationOpened, LaneRegistered
from sparring.contracts.settings import SETTINGS_ADOPTED
from sparring.contracts.sync import BatchAdmitted, GamesRecorded
from sparring.contracts.training_slots import SlotClaimed
from sparring.entity_store import EntityStore
from sparring.log import JetStreamLog
from sparring.log.slice import SliceLog
from sparring.server import EmbeddedServer
from sparring.testing import at
from sparring.topology import declare_topology
from training_slots.app import SERVICE as SLOTS

READS = (
    "status", "lanes", "nodes", "tasks", "models", "data", "sync", "datasets", "slots", "health", "alarms", "dlq ls", "dlq stats",
    "why hex", "sql 'select * from pipeline_lanes'", "events", "settings", "doctor --log",
)  # fmt: skip
# what depends on the moment of asking
PASSING = {"age_s", "behind_s", "up", "unheard"}


def words_of(read: str) -> list[str]:
    name, _, rest = read.partition(" '")
    return [*name.split(), *([rest.rstrip("'")] if rest else [])]


def joined(node: str) -> NodeJoined:
    return NodeJoined(node=node, boot="b", build="1", compatible=True, ephemeral=False, tags=(), kinds=(), machine=node,
                      cores=8, memory_bytes=2**35, gpus=(), seats=2)  # fmt: skip


@pytest_asyncio.fixture
async def url(server: EmbeddedServer) -> AsyncIterator[str]:
    """A log of nine facts, two of which were one decision."""
    assert server.address is not None
    nc = await nats.connect(server.address.url)
    await declare_topology(nc)
    store = EntityStore(JetStreamLog(nc))
    spec = LaneSpec.model_validate({"name": "hex", "game": "hex", "commands": {"selfplay": ("x", "{job}", "{out}")}})
    check = Check(ok=True, games=10, positions=100, policy_coverage=1.0, mean_plies=10)
    games: dict[str, Any] = {
        "batch": "b1",
        "lane": "hex",
        "games": 10,
        "positions": 100,
        "model": "",
        "sha256": "a" * 64,
    }
    story: list[tuple[Fact, ...]] = [
        (LaneRegistered(lane="hex", spec=spec),),
        (IterationOpened(iteration="hex-1", lane="hex", number=1, min_positions=1, min_new_games=1, games_before=0,
                         positions_before=0, deadline_at=at(600)),),
        (joined("n1"), joined("n2")),
        (GamesRecorded(task="t", attempt=1, node="n1", bytes=10, check=check, **games),),
        (BatchAdmitted(url="u", check=check, **games),),
        (SlotClaimed(lane="hex", holder="hex-1-1", until=at(90), waited_s=0, held=1, limit=3),),
        (NodeLost(node="n2", reason="silent", boot="b", silent_s=20, limit_s=20),),
        (AlarmRaised(alarm="node-n2", about="n2", severity="warning", text="node n2 is lost", remedy="start it"),),
    ]  # fmt: skip
    for number, facts in enumerate(story):
        await tell(store, number, *facts)
    await nc.close()
    yield server.address.url


async def adopt(url: str) -> None:
    """The tenth fact: the pool of training slots says under which settings it runs."""
    settings = SLOTS.settings()
    fact = SETTINGS_ADOPTED["training-slots"].model_validate(
        {
            "service": "training-slots",
            "hash": settings.fingerprint(),
            "build": "1",
            "values": settings.model_dump(mode="json"),
        }
    )
    nc = await nats.connect(url)
    await tell(EntityStore(JetStreamLog(nc)), 99, fact)
    await nc.close()


def without_moments(text: str) -> Any:
    def kept(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: kept(one) for name, one in value.items() if name not in PASSING}
        return [kept(one) for one in value] if isinstance(value, list) else value

    return [kept(json.loads(line)) for line in text.splitlines()]


@pytest.mark.parametrize(("suffix", "reads"), [(".ndjson", ("status", "events", "why hex")), (".parquet", READS)])
def test_every_read_answers_from_a_file_as_from_the_cluster(
    url: str, tmp_path: Path, suffix: str, reads: Sequence[str]
) -> None:
    """The two kinds of file hold the same messages: what is read of them is read by one code."""
    asyncio.run(adopt(url))
    file = tmp_path / f"all{suffix}"
    assert spar("export", str(file), "--nats", url)[0] == 0
    for read in reads:
        # doctor looks at more than the log unless it is asked about the past
        for moment in [["--at", "10"], ["--at", "5"]] if read.startswith("doctor") else [[], ["--at", "5"]]:
            words = [*words_of(read), "--json", *moment]
            live, replayed = spar(*words, "--nats", url), spar("replay", str(file), *words)
            # told by the rules of a service that had not run yet at 5, or never did: both say so
            silent = read == "sync" or (read == "slots" and moment == ["--at", "5"])
            assert live[0] == (2 if silent else 0), (read, live)
            assert without_moments(live[1]) == without_moments(replayed[1]), read
            assert replayed[0] == live[0], (read, replayed)


def test_a_slice_says_what_it_lacks(url: str, tmp_path: Path) -> None:
    file = tmp_path / "part.ndjson"
    code, text = spar("export", str(file), "--from", "4", "--to", "6", "--nats", url)
    assert code == 0 and "facts 4 to 6" in text
    code, text = spar("replay", str(file))
    assert "what came before or beside is not in it" in text and "GamesRecorded" in text
    assert "LaneRegistered" not in spar("replay", str(file), "events")[1]
    assert [raw.sequence for batch in SliceLog(file).raws() for raw in batch] == [4, 5, 6]


async def test_only_one_lane_is_exported_when_asked(url: str, tmp_path: Path) -> None:
    file = tmp_path / "other.ndjson"
    code, text = await asyncio.to_thread(spar, "export", str(file), "--lane", "other", "--nats", url)
    assert code == 2 and "--lane = 'other' is not known; see spar lanes" in text and not file.exists()
    nc = await nats.connect(url)
    spec = LaneSpec.model_validate({"name": "other", "game": "hex", "commands": {"selfplay": ("x", "{job}", "{out}")}})
    await tell(EntityStore(JetStreamLog(nc)), 99, LaneRegistered(lane="other", spec=spec))
    await nc.close()
    assert (await asyncio.to_thread(spar, "export", str(file), "--lane", "other", "--nats", url))[0] == 0
    kinds = {raw.subject.rsplit(".", 1)[1] for batch in SliceLog(file).raws() for raw in batch}
    assert kinds == {"NodeJoined", "NodeLost", "AlarmRaised", "LaneRegistered"}, (
        "what is about no lane is about all of them"
    )


def test_a_moment_inside_a_batch_is_its_end(url: str, tmp_path: Path) -> None:
    file = tmp_path / "all.parquet"
    spar("export", str(file), "--nats", url)
    for words in (["--nats", url], ["--data", str(file)]):
        shown = json.loads(spar("nodes", "--json", "--at", "3", *words)[1])
        assert [one["node"] for one in shown["nodes"]] == ["n1", "n2"]
        assert shown["as_of"] == 4


def test_what_changed_is_told_in_sentences(url: str) -> None:
    code, text = spar("diff", "2", "--nats", url)
    assert code == 0
    for sentence in ("hex: +10 games, +100 positions", "node n1: not there → healthy", "node n2: not there → lost",
                     "hex: free → held by hex-1-1", "alarm node-n2 raised, warning: node n2 is lost", "from 2 to 9: 7 facts"):  # fmt: skip
        assert sentence in text, text
    assert "nothing changed" in spar("diff", "9", "9", "--nats", url)[1]
    told = json.loads(spar("diff", "6", "9", "--json", "--nats", url)[1])
    assert told["from"] == 6 and "nodes" in told["changes"] and "data" not in told["changes"]


def test_bad_input_is_named(url: str, tmp_path: Path) -> None:
    damaged, other = tmp_path / "damaged.ndjson", tmp_path / "other.parquet"
    damaged.write_text('{"slice": {"log": "x", "first": 1, "last": 2}}\n{"sequence": 1}\n')
    other.write_bytes(b"no parquet")
    for words, part in (
        (["export", str(tmp_path / "log.txt"), "--nats", url], "must end with .ndjson or .parquet"),
        (["export", str(tmp_path / "l.ndjson"), "--from", "7", "--to", "3", "--nats", url], "nothing lies between"),
        (["export", str(tmp_path / "l.ndjson"), "--to", "99", "--nats", url], "the log ends at 9"),
        (["replay", str(tmp_path / "none.ndjson"), "status"], "there is no such slice"),
        (["replay", str(damaged), "status"], "line 2"),
        (["replay", str(other), "status"], "not a slice of a log"),
        (["pause", "--data", str(damaged)], "no server, no services"),
    ):
        code, text = spar(*words)
        assert code == 2 and part in text, (words, code, text)
    assert not list(tmp_path.glob("l.ndjson"))


# what asks about the past in words of its own, or about nothing that facts tell
WITHOUT_AT = {
    "diff": "names two moments", "export": "names a span", "log status": "what lies where now",
    "dlq rehearse": "decides with the state as it is now", "sprt": "arithmetic", "simulate": "no log", "replay": "runs a read",
    "rebuild": "says at which sequence it compares",
}  # fmt: skip
# what changes something
ORDERS = {
    "up", "pause", "resume", "halt", "drain", "boost", "step", "reject", "rollback", "agent", "submit", "with-slot", "lanes add", "nodes forget",
    "nodes retire", "tasks cancel", "record games", "record metrics", "record model", "slots preempt", "slots hold",
    "slots lift", "dlq redrive", "dlq discard", "log archive",
}  # fmt: skip


def commands(found: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, set[str]]]:
    children = getattr(found, "commands", {})
    options = {one.name for one in found.params}
    if not children or "nats" in options:
        yield " ".join(path), options
    for name, child in children.items():
        yield from commands(child, (*path, name))


def test_every_command_that_reads_answers_for_any_moment() -> None:
    found = dict(commands(typer.main.get_command(build())))
    assert {name for name, options in found.items() if "at" not in options} == {*WITHOUT_AT, *ORDERS}


def test_settings_are_those_that_a_service_adopted_by_then(url: str) -> None:
    asyncio.run(adopt(url))
    told = json.loads(spar("settings", "training-slots", "--nats", url, "--json")[1])
    assert told["settings"]["training-slots"]["hash"] == SLOTS.settings().fingerprint()
    assert json.loads(spar("settings", "--nats", url, "--at", "9", "--json")[1])["settings"] == {}
    code, text = spar("settings", "--nats", url, "--config", "x.toml")
    assert code == 2 and "leave the file out" in text


def test_beats_are_not_kept_and_the_refusal_says_what_to_ask_instead(url: str) -> None:
    code, text = spar("services", "--at", "5", "--nats", url)
    assert code == 2 and "spar health --at 5" in text


def test_the_log_of_a_past_moment_is_examined(url: str, tmp_path: Path) -> None:
    assert spar("doctor", "--at", "9", "--nats", url) == (0, "all well: the log's invariants hold\n")
    file = tmp_path / "all.parquet"
    spar("export", str(file), "--nats", url)
    assert spar("doctor", "--data", str(file))[0] == 0
    # a script hears what the command found, also through replay
    assert spar("replay", str(file), "doctor")[0] == 0
    assert spar("replay", str(file), "slots")[0] == spar("slots", "--data", str(file))[0] != 0
