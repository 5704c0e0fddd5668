"""What a run says: its report, its pictures, two policies side by side, a real log as the source of durations."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sparring.cli.app import build
from sparring.envelope import Envelope, encode
from sparring.errors import BadInput
from sparring.simulation import Cluster
from sparring.simulation.chronicle import Run
from sparring.simulation.compare import paired
from sparring.simulation.policies import policies, policy
from sparring.simulation.real_log import profile
from sparring.simulation.report import jain, percentile, report, used_s
from sparring.simulation.setup import Setup, quick


def test_jains_index_is_one_when_all_are_equal_and_one_nth_when_one_has_everything() -> None:
    assert jain([5.0, 5.0, 5.0]) == pytest.approx(1.0)
    assert jain([9.0, 0.0, 0.0]) == pytest.approx(1 / 3)
    assert jain([]) == 1.0


def test_percentiles_are_values_that_were_seen() -> None:
    assert percentile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert percentile([3.0, 1.0, 2.0], 0.99) == 3.0
    assert percentile([], 0.5) is None


def test_no_node_counts_more_seats_than_it_has() -> None:
    runs = [Run("n1", "a", "selfplay", 0.0, 10.0, False), Run("n1", "a", "evaluate", 5.0, 15.0, False)]
    assert used_s(runs, {"n1": 1}) == 15.0
    assert used_s(runs, {"n1": 2}) == 20.0


def test_the_report_adds_up() -> None:
    cluster = Cluster(quick(2, nodes=3))
    cluster.run(400)
    found = report(cluster)
    assert 0.5 < found["utilisation"] <= 1.0
    assert found["games"] == sum(row["games"] for row in found["lanes"]) > 0
    assert found["violations"] == []
    assert json.loads(json.dumps(found)) == found


def test_the_command_reports_and_draws(tmp_path: Path) -> None:
    asked = ["simulate", "--nodes", "3", "--minutes", "30", "--churn", "20", "--out", str(tmp_path), "--json"]
    found = json.loads(CliRunner().invoke(build(), asked).stdout)
    assert found["games"] > 0
    assert Path(found["picture"]).read_bytes().startswith(b"\x89PNG")
    page = Path(found["page"]).read_text()
    assert page.count("<rect") > 20 and "http" not in page.replace("http://www.w3.org/2000/svg", "")


def test_the_command_refuses_a_run_without_time_and_unknown_policies() -> None:
    for asked, text in ((["simulate"], "--hours"), (["simulate", "--hours", "1", "--policy", "magic"], "fifo")):
        result = CliRunner().invoke(build(), asked)
        assert isinstance(result.exception, BadInput) and text in str(result.exception)


def test_policies_replace_settings_or_one_function_and_put_it_back() -> None:
    from selfplay_orch.core import plan
    from selfplay_orch.settings import Settings

    before = plan.shares
    with policy("equal-shares").in_force():
        assert plan.shares is not before
    assert plan.shares is before
    changed = Settings(**policy("fifo").settings["selfplay-orch"])
    assert {one.reserved for one in changed.kinds.values()} == {0}
    assert {"default", "fifo", "no-reserve", "no-ageing", "equal-shares"} <= set(policies())


def test_a_clear_difference_has_an_interval_without_zero_and_noise_has_not() -> None:
    first = [1.0, 2.0, 3.0, 4.0, 5.0]
    clear = paired(first, [one + 1.0 + one / 100 for one in first], "games")
    assert clear.clear and clear.low <= clear.difference <= clear.high
    assert not paired(first, [0.5, 2.5, 2.5, 4.5, 5.0], "games").clear


def exported(cluster: Cluster, file: Path) -> None:
    with file.open("w") as handle:
        for one in cluster.ledger.facts:
            subject, headers, body = encode(one.fact, Envelope(one.id, "x", one.at, one.order))
            line = {"sequence": one.sequence, "time": one.at.isoformat(), "subject": subject, "headers": headers,
                    "body": json.loads(body)}  # fmt: skip
            handle.write(json.dumps(line) + "\n")


def test_an_exported_log_gives_lanes_nodes_durations_and_failures(tmp_path: Path) -> None:
    cluster, file = Cluster(quick(5, nodes=3)), tmp_path / "log.ndjson"
    cluster.run(300)
    exported(cluster, file)
    known = profile(file)
    assert set(known.lanes) == {"alpha", "beta"} and len(known.nodes) == 3
    assert known.positions_per_game == pytest.approx(cluster.setup.work.positions)
    assert 0.1 < sum(known.durations["selfplay"]) / len(known.durations["selfplay"]) < 5.0
    again = Cluster(known.setup(Setup(seed=9)))
    again.run(300)
    assert sum(again.chronicle.games.values()) > 100


def test_a_line_that_is_no_fact_is_named(tmp_path: Path) -> None:
    file = tmp_path / "log.ndjson"
    file.write_text(
        '{"sequence": 1, "time": "2030-01-01T00:00:00+00:00", "subject": "evt.sync.batch.b.Nonsense", "body": {}}\n'
    )
    with pytest.raises(BadInput, match="line 1"):
        profile(file)
