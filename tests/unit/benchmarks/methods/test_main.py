import subprocess
import sys

import pytest

from benchmarks.harness.results import ROOT
from benchmarks.methods.students import ALL


@pytest.mark.long
@pytest.mark.parametrize("task", [[], ["--few-labels"]], ids=["many", "few"])
def test_every_method_runs_and_is_in_the_table(task: list[str]):
    command = [sys.executable, "-m", "benchmarks.methods", "--quick", *task]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    rows = [line.split("|")[1].strip() for line in done.stdout.splitlines() if line.startswith("| ")]
    assert set(rows) == {"method", "---", *ALL, "born-again, ensemble"}
