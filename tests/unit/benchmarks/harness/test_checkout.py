from pathlib import Path

import pytest

from benchmarks.harness.checkout import code_digest, copy_checkout, reflux_run
from benchmarks.harness.results import ROOT


def test_a_copy_has_the_code_and_the_data_but_no_results(tmp_path: Path):
    copy = copy_checkout(tmp_path)
    assert copy == tmp_path / "reflux"
    assert {"components", "flows", "data", "params.yaml", "dvc.yaml"} <= {path.name for path in copy.iterdir()}
    assert not {".venv", ".git", "artifacts", ".reflux"} & {path.name for path in copy.iterdir()}


def test_a_run_with_another_exit_code_is_an_error(tmp_path: Path):
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    with pytest.raises(SystemExit, match="exit code 2, not 0"):
        reflux_run(tmp_path, ["no_such_param=1"])


def test_results_are_kept_until_the_benchmarks_code_changes(tmp_path: Path):
    own = tmp_path / "benchmark.py"
    own.write_text("STEPS = 1", encoding="utf-8")
    digest = code_digest(own)
    assert code_digest(tmp_path) == code_digest(own) == digest
    own.write_text("STEPS = 2", encoding="utf-8")
    assert code_digest(own) != digest
