import os
import sys
from pathlib import Path

import pytest

from benchmarks.harness.processes import measured, status_kb


def test_time_and_memory_of_a_command_are_measured(tmp_path: Path):
    program = "import time; held = bytearray(50_000_000); time.sleep(0.3)"
    usage = measured([sys.executable, "-c", program], tmp_path, "VmHWM")
    assert usage.wall_s > 0.3
    assert 0 < usage.cpu_s < usage.wall_s + 1
    assert usage.peak_kb > 50_000


def test_the_end_of_a_failed_commands_output_is_said(tmp_path: Path):
    with pytest.raises(SystemExit, match="no such stage"):
        measured([sys.executable, "-c", "import sys; sys.exit('no such stage')"], tmp_path, "VmHWM")


def test_a_process_that_has_ended_has_no_memory():
    assert status_kb(os.getpid(), "VmHWM") > 0
    assert status_kb(2**30, "VmHWM") == 0
