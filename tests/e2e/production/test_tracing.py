"""A whole ``reflux run`` whose trace a real receiver decodes."""

import pytest

from reflux.components.core.contract import STEPS
from tests.e2e.command import reflux
from tests.receiver import Receiver

pytestmark = pytest.mark.long


def test_a_run_is_a_trace_with_a_span_for_each_stage(tmp_path, monkeypatch, tiny_project):
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="NO EXPORTER: pip install '.[tracing]'")
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    project = tiny_project(tmp_path / "project")
    receiver = Receiver()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{receiver.port}")
    done = reflux(project, "run")
    receiver.close()
    assert done.returncode == 0, done.stdout + done.stderr
    requests = [ExportTraceServiceRequest.FromString(body) for _, body in receiver.got]
    sent = [
        span for request in requests for each in request.resource_spans for s in each.scope_spans for span in s.spans
    ]
    spans = {span.name: span for span in sent}
    root = spans.pop("retrain")
    assert set(spans) == set(STEPS)
    assert len(sent) == len(STEPS) + 1
    for name, span in spans.items():
        assert (span.trace_id, span.parent_span_id) == (root.trace_id, root.span_id)
        assert {each.key: each.value.string_value for each in span.attributes} == {
            "reflux.stage": name,
            "reflux.outcome": "ran",
        }
    assert spans["control"].start_time_unix_nano < spans["distill"].end_time_unix_nano, "they run side by side"
