"""The report of a bench, as it comes back from a device."""

import json
from typing import Any

import pytest

from reflux.components.advice.bench.report import Report, read, slower
from reflux.components.core.errors import UserError


def report(device: str = "pi5", **changes: Any) -> Report:
    """A report of two files: the second has half the bytes and takes 1.2 times as long; ``changes`` are its row's."""
    speed = {"threads": 1, "batch": 1, "ms_p50": 6.0, "ms_p95": 7.5, "cpu_ms": 6.0}
    facts = {"runtime": "onnxruntime", "runtime_version": "1.32.0", "accuracy": 0.8, "agreement": 1.0}
    facts |= {"reproduced": 1.0, "load_ms": 12.0, "peak_mb": 60.0, "sha256": "a" * 64}
    first = {"name": "student.onnx", "size_bytes": 2048, "speeds": [{**speed, "cpu": 1, "cpu_low": 1, "cpu_high": 1}]}
    times = [{**speed, "cpu": 1.2, "cpu_low": 1.1, "cpu_high": 1.3}]
    second = {"name": "student-int8.onnx", "size_bytes": 1024, "speeds": times, "sha256": "b" * 64}
    about = {"format": 1, "project": "demo", "device": device, "measured_at": "2026-11-27T01:00:00+00:00"}
    about |= {"machine": "aarch64", "system": "Linux 6.12", "python": "3.11.2", "images": 500}
    return Report.model_validate({**about, "rows": [facts | first, facts | second | changes]})


def test_a_report_is_read_as_it_was_written(tmp_path):
    path = tmp_path / "report-pi5.json"
    path.write_text(report().model_dump_json())
    assert read(path) == report()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"format": 2}, r"report.json is no report of bench.py \(format has a wrong value\): give the file that"),
        ({"device": "my pi"}, r"\(device has a wrong value\)"),
        ({"rows": []}, r"\(rows has a wrong value\)"),
        ({"notes": "edited"}, r"\(notes is not part of one\)"),
    ],
)
def test_what_is_no_report_is_one_sentence(tmp_path, change, sentence):
    path = tmp_path / "report.json"
    path.write_text(json.dumps(report().model_dump(mode="json") | change))
    with pytest.raises(UserError, match=sentence) as caught:
        read(path)
    assert "\n" not in str(caught.value)


def test_a_torn_or_missing_report_is_one_sentence(tmp_path):
    path = tmp_path / "report.json"
    with pytest.raises(UserError, match=r"is not a file: give the one that bench\.py wrote"):
        read(path)
    path.write_text(report().model_dump_json()[:-20])
    with pytest.raises(UserError, match=r"is no report of bench.py \(it is not valid JSON\)"):
        read(path)
    path.write_text("[]")
    with pytest.raises(UserError, match=r"is no report of bench.py \(it is no JSON object\)"):
        read(path)
    path.write_text("{}")
    with pytest.raises(UserError, match=r"is no report of bench.py \(format is missing\)"):
        read(path)


def test_a_file_is_slower_where_the_whole_interval_is():
    (row, speeds), *others = slower(report().rows)
    assert (row.name, len(speeds), others) == ("student-int8.onnx", 1, [])
    level = report(speeds=[report().rows[1].speeds[0].model_dump() | {"cpu_low": 0.9}])
    assert slower(level.rows) == []
