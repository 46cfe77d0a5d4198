"""The spans of a run's stages, which make up its trace."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span, Tracer

PARENT_VARIABLE = "TRACEPARENT"  # where the environment names a span that the run belongs to, by W3C's Trace Context


class Spans:
    """The spans of a run's stages.

    Args:
        tracer: makes them.
        context: with the span of the flow, to which they belong.

    Attributes:
        environment: variables for a process that goes on with this trace.
    """

    def __init__(self, tracer: "Tracer", context: "Context") -> None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._tracer, self._context = tracer, context
        self._open: dict[str, Span] = {}
        carrier: dict[str, str] = {}
        TraceContextTextMapPropagator().inject(carrier, context)
        self.environment = {PARENT_VARIABLE: carrier["traceparent"]} if carrier else {}

    def begin(self, stage: str) -> None:
        """A stage starts."""
        self._open[stage] = self._tracer.start_span(stage, self._context, attributes={"reflux.stage": stage})

    def end(self, stage: str, outcome: str) -> None:
        """A stage ends; one that another worker ran has its span there.

        Args:
            stage: its name.
            outcome: ran, cached, failed, skipped or stopped.
        """
        from opentelemetry.trace import StatusCode

        if (span := self._open.pop(stage, None)) is None:
            return
        span.set_attribute("reflux.outcome", outcome)
        if outcome == "failed":
            span.set_status(StatusCode.ERROR)
        span.end()

    def stop(self) -> None:
        """The run ends: so do the stages that are still at work."""
        for stage in list(self._open):
            self.end(stage, "stopped")
