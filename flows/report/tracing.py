"""The trace of a run by OpenTelemetry, where an endpoint is set: a span of the flow, and one of each stage below it."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from reflux.flows.report.display import Display
from reflux.flows.report.spans import PARENT_VARIABLE, Spans

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")

_PACKAGE = "opentelemetry-exporter-otlp-proto-http"


@contextmanager
def traced(display: Display, name: str, project: str, flow_run_id: str) -> Iterator[None]:
    """Send a span of the block, and one of each stage that the display follows in it; without an endpoint do nothing.

    A receiver that does not answer never fails the run, and holds up its end for at most twice
    ``OTEL_EXPORTER_OTLP_TIMEOUT``, which is ten seconds by default.

    Args:
        display: follows the stages.
        name: of the flow.
        project: ``project.name``.
        flow_run_id: in Prefect; the run in MLflow has it as a tag.
    """
    provider = _provider(display)
    if provider is None:
        yield
        return
    from opentelemetry.trace import set_span_in_context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    tracer = provider.get_tracer("reflux")
    parent = TraceContextTextMapPropagator().extract({"traceparent": os.environ.get(PARENT_VARIABLE, "")})
    attributes = {"reflux.project": project, "prefect.flow_run_id": flow_run_id}
    logger, handler = logging.getLogger("opentelemetry"), _Complaint(display)
    logger.addHandler(handler)
    try:
        with tracer.start_as_current_span(name, parent, attributes=attributes, record_exception=False) as span:
            display.spans = Spans(tracer, set_span_in_context(span))
            try:
                yield
            finally:
                display.spans.stop()
                display.spans = None
    finally:
        provider.shutdown()
        logger.removeHandler(handler)


class _Complaint(logging.Handler):
    """Tells the user the first error of the exporter, whose own lines would tear the live list apart."""

    def __init__(self, display: Display) -> None:
        super().__init__(logging.ERROR)
        self._display, self._silent = display, False

    def emit(self, record: logging.LogRecord) -> None:
        if not self._silent:
            self._silent = True
            self._display.note(f"Note: The trace is not sent: {record.getMessage()}")


def _provider(display: Display) -> "TracerProvider | None":
    """The provider of spans, or None where no endpoint is set or the exporter is not installed."""
    endpoint = next((variable for variable in ENDPOINTS if os.environ.get(variable)), None)
    if endpoint is None:
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ModuleNotFoundError:
        display.note(f"Note: {endpoint} is set, and a trace needs the package {_PACKAGE}: `pip install {_PACKAGE}`.")
        return None
    os.environ.setdefault("OTEL_SERVICE_NAME", "reflux")
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider
