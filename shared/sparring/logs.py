"""Structured logs: one line an event, with trace id; for people in a terminal, JSON otherwise."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import MutableMapping
from typing import Any, TextIO

import structlog
from opentelemetry import trace

Log = Any


def _with_trace(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        event["trace"] = f"{context.trace_id:032x}"
    return event


def set_up(service: str, replica: str = "", stream: TextIO = sys.stderr) -> Log:
    """The process's logger, bound to the service's name; level from SPARRING_LOG_LEVEL (default info)."""
    level = logging.getLevelName(os.environ.get("SPARRING_LOG_LEVEL", "info").upper())
    renderer: Any = structlog.dev.ConsoleRenderer() if stream.isatty() else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _with_trace,
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level if isinstance(level, int) else logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(stream),
        cache_logger_on_first_use=True,
    )
    log = structlog.get_logger().bind(service=service)
    return log.bind(replica=replica) if replica else log
