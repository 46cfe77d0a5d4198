"""The trace of a run, as a receiver gets it over HTTP."""

import logging
import subprocess
import sys
from collections.abc import Iterator

import pytest

from reflux.flows.local.prefect_server import free_port
from reflux.flows.outcome import StageOutcome
from reflux.flows.report.display import Display
from reflux.flows.report.tracing import traced
from tests.receiver import Receiver


@pytest.fixture
def receiver(monkeypatch) -> Iterator[Receiver]:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="NO EXPORTER: pip install '.[tracing]'")
    receiver = Receiver()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{receiver.port}")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "shapes")
    yield receiver
    receiver.close()


@pytest.fixture
def display() -> Display:
    """A display whose ``said`` has the lines for people."""
    said: list[str] = []
    display = Display(said.append, logging.getLogger("test"))
    display.said = said
    return display


def received(receiver: Receiver) -> dict:
    """The spans by their names, decoded as a collector does."""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    spans = {}
    for headers, body in receiver.got:
        assert headers["content-type"] == "application/x-protobuf"
        request = ExportTraceServiceRequest.FromString(body)
        for each in request.resource_spans:
            service = {attribute.key: attribute.value.string_value for attribute in each.resource.attributes}
            assert service["service.name"] == "shapes"
            spans |= {span.name: span for scope in each.scope_spans for span in scope.spans}
    return spans


def attributes(span) -> dict[str, str]:
    return {attribute.key: attribute.value.string_value for attribute in span.attributes}


def test_each_stage_is_a_span_below_that_of_the_flow_from_its_start_to_its_end(receiver, display):
    from opentelemetry.proto.trace.v1.trace_pb2 import Status

    with traced(display, "retrain", "shapes", "flow-1"):
        display.begin("control")
        display.begin("distill")
        display.begin("control")  # now it is awaited
        display.end("distill", StageOutcome.RAN)
        display.end("control", StageOutcome.CACHED)
        display.begin("compress")
        display.close("compress", "failed")
        display.end("label", StageOutcome.RAN)  # on another worker
    spans = received(receiver)
    assert set(spans) == {"retrain", "control", "distill", "compress"}
    root = spans["retrain"]
    assert attributes(root) == {"reflux.project": "shapes", "prefect.flow_run_id": "flow-1"}
    assert root.parent_span_id == b""
    outcomes = {"control": "cached", "distill": "ran", "compress": "failed"}
    for stage, outcome in outcomes.items():
        assert (spans[stage].trace_id, spans[stage].parent_span_id) == (root.trace_id, root.span_id)
        assert attributes(spans[stage]) == {"reflux.stage": stage, "reflux.outcome": outcome}
        failed = spans[stage].status.code == Status.STATUS_CODE_ERROR
        assert failed == (outcome == "failed")
    assert spans["control"].start_time_unix_nano < spans["distill"].start_time_unix_nano
    assert spans["control"].end_time_unix_nano > spans["distill"].end_time_unix_nano
    assert display.spans is None


def test_a_run_that_fails_says_why_and_one_on_another_worker_goes_on_with_the_trace(receiver, display, monkeypatch):
    from opentelemetry.proto.trace.v1.trace_pb2 import Status

    with pytest.raises(RuntimeError), traced(display, "retrain", "shapes", "flow-1"):
        (variable,) = display.spans.environment.items()
        display.begin("control")
        raise RuntimeError("no images")
    monkeypatch.setenv(*variable)
    with traced(display, "train", "shapes", "flow-2"):
        pass
    spans = received(receiver)
    assert (spans["retrain"].status.code, spans["retrain"].status.message) == (
        Status.STATUS_CODE_ERROR,
        "RuntimeError: no images",
    )
    assert attributes(spans["control"])["reflux.outcome"] == "stopped"
    assert spans["train"].trace_id == spans["retrain"].trace_id
    assert spans["train"].parent_span_id == spans["retrain"].span_id


def test_a_receiver_that_is_away_fails_nothing_and_is_named_once(receiver, display, monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    with traced(display, "retrain", "shapes", "flow-1"):
        display.begin("ingest")
        display.end("ingest", StageOutcome.RAN)
    notes = [line for line in display.said if line.startswith("Note: ")]
    assert len(notes) == 1
    assert notes[0].startswith("Note: The trace is not sent: ")


def test_a_missing_exporter_is_named_with_the_way_to_install_it(display, monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://127.0.0.1:4318/v1/traces")
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with traced(display, "retrain", "shapes", "flow-1"):
        assert display.spans is None
    (note,) = display.said
    package = "opentelemetry-exporter-otlp-proto-http"
    trace = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT is set, and a trace"
    assert note == f"Note: {trace} needs the package {package}: `pip install {package}`."


def test_without_an_endpoint_nothing_of_it_is_imported():
    program = """
import logging, sys
from reflux.flows.report.display import Display
from reflux.flows.report.tracing import traced
with traced(Display(print, logging.getLogger()), "retrain", "shapes", "flow-1"):
    pass
assert not [name for name in sys.modules if name.startswith("opentelemetry")]
"""
    subprocess.run([sys.executable, "-c", program], check=True)
