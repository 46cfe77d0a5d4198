"""The script that a device runs, where it has nothing to measure."""

import json
import shutil
import subprocess
import sys

import pytest

from reflux.components.advice.bench import device
from reflux.components.core.params.registry import DEVICE


def test_a_gate_can_name_every_device_that_can_name_itself():
    assert f"^{device._NAME}$" == DEVICE


@pytest.mark.parametrize(
    ("name", "threads", "sentence"),
    [
        ("my pi", 1, "Name the device by letters, digits and . _ -: python bench.py --device pi5"),
        ("pi5", 4096, "4096 threads are more than the "),
        ("pi5", 1, "No file can be measured: install what requirements.txt names."),
    ],
)
def test_what_can_not_be_measured_is_one_sentence_and_no_report(tmp_path, name, threads, sentence):
    shutil.copy(device.__file__, tmp_path / "bench.py")
    file = {"name": "student.onnx", "runtime": "no_such_runtime"}
    plan = {"format": 1, "project": "demo", "images": 4, "threads": [threads], "batches": [1], "files": [file]}
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    command = [sys.executable, "-I", tmp_path / "bench.py", "--device", name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(f"Error: {sentence}")
    assert done.stderr.count("\n") == 1
    left_out = "student.onnx is left out: no_such_runtime is not installed here.\n"
    assert done.stdout == (left_out if "No file" in sentence else "")
    assert not [*tmp_path.glob("report*")]
