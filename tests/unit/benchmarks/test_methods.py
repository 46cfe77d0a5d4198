import subprocess
import sys

import pytest

from benchmarks.methods import table
from benchmarks.results import ROOT, Figure
from components.core.params.distill import METHODS


@pytest.mark.long
def test_every_method_runs_and_is_in_the_table():
    command = [sys.executable, "-m", "benchmarks.methods", "--quick", "--threads", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    rows = [line.split("|")[1].strip() for line in done.stdout.splitlines() if line.startswith("| ")]
    assert set(rows) == {"method", "---", "control", *METHODS}


def test_the_table_is_sorted_by_the_first_student():
    figures = [
        Figure(f"{student}/{method}/accuracy", 80.0 + place, 79.0, 81.0, "%")
        for student in ("resnet8_slim", "resnet8")
        for place, method in enumerate(("control", *METHODS))
    ]
    rows = [line.split("|")[1].strip() for line in table(figures).splitlines()[2:]]
    assert rows == [*reversed(METHODS), "control"]
