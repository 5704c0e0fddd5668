"""Spans of users' own programs, in the trace of the iteration that they belong to."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, ParamSpec, TypeVar

from opentelemetry import trace

from sparring import telemetry
from sparring.client.reading import Reading
from sparring.reader import log_identity

P = ParamSpec("P")
R = TypeVar("R")


class Tracing(Reading):
    """Spans go where `OTEL_EXPORTER_OTLP_ENDPOINT` says, or to the provider that the program has set; else nowhere."""

    async def prepare_tracing(self) -> None:
        """Lets the ids of iterations' traces be those of this cluster. Raises BadInput when no server is found."""
        telemetry.set_up("client")
        telemetry.salt_with(await log_identity(await self._connected()))

    @contextlib.asynccontextmanager
    async def span(self, name: str, *, iteration: str = "", **attributes: Any) -> AsyncIterator[trace.Span]:
        """`async with client.span("distil", iteration="hex5_2p-3", steps=100): …`; orders sent inside carry its context.

        Inside of another span it is that one's child; without an iteration, in a program that an agent runs, the task's.
        """
        await self.prepare_tracing()
        with own_span(name, iteration, attributes) as one:
            yield one

    def traced(
        self, name: str = "", *, iteration: str = "", **attributes: Any
    ) -> Callable[[Callable[P, Awaitable[R]]], Callable[P, Awaitable[R]]]:
        """As a decorator of async functions: each call is a span, named as the function unless told otherwise."""

        def around(function: Callable[P, Awaitable[R]]) -> Callable[P, Awaitable[R]]:
            @functools.wraps(function)
            async def run(*args: P.args, **kwargs: P.kwargs) -> R:
                async with self.span(name or function.__qualname__, iteration=iteration, **attributes):
                    return await function(*args, **kwargs)

            return run

        return around


@contextlib.contextmanager
def own_span(name: str, iteration: str, attributes: dict[str, Any]) -> Iterator[trace.Span]:
    """A span under the running one, else under the iteration's root, else under the task that runs this program."""
    inside = trace.get_current_span().get_span_context().is_valid
    given = "" if inside or iteration else os.environ.get("TRACEPARENT", "")
    if iteration:
        attributes = attributes | {"iteration": iteration, "lane": iteration.rpartition("-")[0]}
    with telemetry.span(name, traceparent=given, correlation="" if inside else iteration, attributes=attributes) as one:
        yield one
