"""Traces: one iteration is one trace, whose ids derive from the iteration itself; off when no endpoint is set."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from datetime import datetime
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import Link, NonRecordingSpan, Span, SpanContext, SpanKind, TraceFlags
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_PROPAGATOR = TraceContextTextMapPropagator()
_fixed_ids: ContextVar[tuple[int, int] | None] = ContextVar("fixed_ids", default=None)
_salt = ""


class _Ids(RandomIdGenerator):
    def generate_trace_id(self) -> int:
        fixed = _fixed_ids.get()
        return fixed[0] if fixed else super().generate_trace_id()

    def generate_span_id(self) -> int:
        fixed = _fixed_ids.get()
        return fixed[1] if fixed else super().generate_span_id()


def set_up(service: str, replica: str = "", exporter: SpanExporter | None = None) -> bool:
    """Sends spans by OTLP over HTTP when the usual variables name an endpoint; says whether it does.

    A process that has a provider already, a user's own program, keeps it.
    """
    if isinstance(trace.get_tracer_provider(), TracerProvider):
        return True
    if exporter is None:
        if not any(os.environ.get(name) for name in ENDPOINTS) or os.environ.get("OTEL_SDK_DISABLED") == "true":
            return False
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        exporter = OTLPSpanExporter()
    resource = Resource.create({"service.name": service, "service.instance.id": replica or service})
    provider = TracerProvider(resource=resource, id_generator=_Ids())
    provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=1000))
    trace.set_tracer_provider(provider)
    return True


def send_now() -> None:
    """Sends what is waiting; spans may follow."""
    provider = trace.get_tracer_provider()
    if isinstance(provider, TracerProvider):
        provider.force_flush(5_000)


def flush() -> None:
    """Sends what is waiting, and ends."""
    provider = trace.get_tracer_provider()
    if isinstance(provider, TracerProvider):
        provider.shutdown()


def salt_with(cluster: str) -> None:
    """Iterations of two clusters carry the same names; the log's birth keeps their traces apart."""
    global _salt
    _salt = cluster


def _digest(text: str, size: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{_salt}|{text}".encode()).digest()[:size], "big") or 1


def root_of(correlation: str) -> SpanContext:
    """The root span that all spans of the iteration descend from; known before it is written."""
    return SpanContext(
        trace_id=_digest(f"trace {correlation}", 16),
        span_id=_digest(f"root {correlation}", 8),
        is_remote=True,
        trace_flags=TraceFlags(TraceFlags.SAMPLED),
    )


def parent(traceparent: str = "", correlation: str = "") -> Any:
    """The context to continue: the message's own, else its iteration's root, else none."""
    if traceparent:
        return _PROPAGATOR.extract({"traceparent": traceparent})
    if correlation:
        return trace.set_span_in_context(NonRecordingSpan(root_of(correlation)))
    return None


def current_traceparent() -> str:
    """The W3C header of the span that runs now; '' without one."""
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier)
    return carrier.get("traceparent", "")


def traceparent_of(correlation: str) -> str:
    """The header of an iteration's root."""
    root = root_of(correlation)
    return f"00-{root.trace_id:032x}-{root.span_id:016x}-01" if correlation else ""


def trace_id_of(traceparent: str) -> str:
    parts = traceparent.split("-")
    return parts[1] if len(parts) == 4 else ""


@contextlib.contextmanager
def span(
    name: str,
    *,
    traceparent: str = "",
    correlation: str = "",
    kind: SpanKind = SpanKind.INTERNAL,
    link: str = "",
    attributes: Mapping[str, Any] | None = None,
    **more: Any,
) -> Iterator[Span]:
    """A span under the message's context; an exception is recorded on it and goes on.

    `correlation` is the lane iteration `<lane>-<n>`; it becomes the attributes `lane` and `iteration`.
    `link` is the traceparent of a moment that was waited for.
    """
    given = {**(attributes or {}), **more}
    known = {key: value for key, value in given.items() if value is not None and value != ""}
    if correlation:
        known |= {"iteration": correlation, "lane": correlation.rpartition("-")[0]}
    links = (
        [Link(ctx) for ctx in [trace.get_current_span(parent(link)).get_span_context()] if ctx.is_valid] if link else []
    )
    tracer = trace.get_tracer("sparring")
    with tracer.start_as_current_span(
        name, context=parent(traceparent, correlation), kind=kind, attributes=known, links=links
    ) as one:
        yield one


def write_root(name: str, correlation: str, start: datetime, end: datetime, **attributes: Any) -> None:
    """Writes the iteration's root span once it is over: an hours-long wait is no open span."""
    root = root_of(correlation)
    token = _fixed_ids.set((root.trace_id, root.span_id))
    try:
        one = trace.get_tracer("sparring").start_span(
            name,
            context=Context(),
            start_time=int(start.timestamp() * 1e9),
            attributes={"lane": correlation.rpartition("-")[0], "iteration": correlation} | attributes,
        )
    finally:
        _fixed_ids.reset(token)
    one.end(int(end.timestamp() * 1e9))
