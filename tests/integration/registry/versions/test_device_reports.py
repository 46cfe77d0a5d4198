"""A gate on a device's latency: a version waits for the report of its file, and is judged by the newest one."""

from reflux.components.core.runtime import tracking
from reflux.flows.report.bench import log
from tests.integration.registry.conftest import GATES
from tests.integration.registry.faults import tags
from tests.unit.advice.bench.test_report import report

ON_PI = {**GATES, "latency_ms_p95": {"max": 20, "device": "pi5"}}


def bring(home, version, ms: float, device: str = "pi5", **changes) -> None:
    """Take a device's report of a version's file, or of the one that ``changes`` name."""
    known = {"sha256": version["artifact_sha256"]} | changes
    times = report().rows[1].speeds[0].model_dump() | {"ms_p95": ms}
    log(report(device, speeds=[times], **known), home.experiment, {known["sha256"]: [1]})
    assert tracking.deliver() == 0


def test_a_version_waits_for_the_report_of_its_file_by_the_device_and_is_then_judged_again(
    home, model_name, registered, judge, aliases
):
    version = registered(right=180)
    waiting = judge(version, gates=ON_PI)
    assert (waiting.decision.status, waiting.outcome, waiting.promoted) == ("UNKNOWN", "unknown", False)
    (reason,) = (reason for reason in waiting.decision.reasons if reason.gate == "latency_ms_p95")
    assert "waits for a report of pi5. `reflux bench 1 --export DIR`" in reason.sentence
    own = tags(model_name, version)
    bring(home, own, 5, device="phone")
    bring(home, own, 5, sha256="c" * 64)
    assert judge(version, gates=ON_PI).existing, "neither another device's report nor one of another file counts"

    bring(home, own, 7.5, reproduced=0.996)
    judged = judge(version, gates=ON_PI)
    assert (judged.decision.status, judged.promoted, aliases()["champion"]) == ("VALIDATED", True, version)
    (reason,) = (reason for reason in judged.decision.reasons if reason.gate == "latency_ms_p95")
    assert reason.sentence.startswith("Latency p95 on pi5 7.5 ms is within the maximum of 20 ms (onnxruntime 1.32.0, ")
    assert reason.sentence.endswith("There it answers 99.6 % of the images as it does here.")
