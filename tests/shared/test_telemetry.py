"""One iteration is one trace: its ids are known before its root is written, and different in every cluster."""

from __future__ import annotations

from datetime import timedelta

from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from sparring import telemetry
from sparring.testing import at


def test_spans_of_an_iteration_descend_from_a_root_that_is_written_last() -> None:
    exporter = InMemorySpanExporter()
    assert telemetry.set_up("test", exporter=exporter)
    telemetry.salt_with("cluster one")
    with telemetry.span("play", correlation="hex5_2p-3"):
        header = telemetry.current_traceparent()
    with telemetry.span("decide", traceparent=header, correlation="hex5_2p-3"):
        pass
    telemetry.write_root("iteration", "hex5_2p-3", at(0), at(0) + timedelta(seconds=60), outcome="promoted")
    telemetry.flush()
    spans = {span.name: span for span in exporter.get_finished_spans()}
    root = spans["iteration"]
    assert root.parent is None
    assert len({span.context.trace_id for span in spans.values()}) == 1
    assert spans["play"].parent is not None
    assert spans["play"].parent.span_id == root.context.span_id
    assert spans["decide"].parent is not None
    assert spans["decide"].parent.span_id == spans["play"].context.span_id
    assert all((span.attributes or {})["lane"] == "hex5_2p" for span in spans.values())
    assert telemetry.trace_id_of(header) == f"{root.context.trace_id:032x}"
    assert telemetry.traceparent_of("hex5_2p-3").split("-")[1] == f"{root.context.trace_id:032x}"
    telemetry.salt_with("cluster two")
    assert telemetry.root_of("hex5_2p-3").trace_id != root.context.trace_id
