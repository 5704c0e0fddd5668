"""One iteration is one trace, over all services and nodes, from its first game to the matches that rate its model."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import cluster

from sparring.contracts.lifecycle import ModelPromoted
from sparring.testing.collector import collector

# what is done for an iteration, by whoever does it
WORK = {
    "selfplay-orch": {"RequestTask", "StartTask", "ReportTaskStarted", "ReportTaskFinished"},
    "sync": {"RecordGames", "UploadBatch", "ReportStored", "ReleaseCustody", "SealDataset"},
    "lifecycle": {"RegisterModel", "RequestTask"},
    "training-slots": {"ClaimSlot", "ReleaseSlot"},
    "node-agent": {"run selfplay", "run export", "run train", "run evaluate", "upload"},
}


async def test_all_that_is_done_for_an_iteration_is_one_trace(tmp_path: Path) -> None:
    with collector() as (endpoint, spans):
        environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}
        with cluster.up(tmp_path, "--once", "3", environ=environ) as one:
            assert one.wait() == 0, one.text
    work = [span for span in spans if any(span.name.endswith(name) for name in WORK.get(span.service, ()))]
    seen = {(span.service, name) for span in work for name in WORK[span.service] if span.name.endswith(name)}
    assert seen == {(service, name) for service, names in WORK.items() for name in names}
    assert [span for span in work if "iteration" not in span.attributes] == []
    traces = defaultdict(set)
    for span in spans:
        if "iteration" in span.attributes:
            traces[span.attributes["iteration"]].add(span.trace)
            assert span.attributes["iteration"].startswith(span.attributes["lane"])
    assert all(len(ids) == 1 for ids in traces.values()), traces
    assert len({trace for ids in traces.values() for trace in ids}) == len(traces)
    # every span of an iteration that is over hangs on its root
    over = {span.trace for span in spans if span.name == "iteration"}
    ids = {span.id for span in spans}
    assert over
    assert [span for span in spans if span.trace in over and span.parent and span.parent not in ids] == []
    promoted = {f.fact.iteration for f in await cluster.facts_of(one.data) if isinstance(f.fact, ModelPromoted)}
    rated = {span.attributes["iteration"] for span in work if "-a" in span.attributes.get("task", "")}
    assert rated <= promoted and rated, "the match against generation 0 lies in the trace of its model's iteration"
