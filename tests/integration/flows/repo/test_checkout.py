"""DVC in a folder with and without git."""

import subprocess
import sys
from pathlib import Path

from reflux.flows.repo.checkout import prepare_dvc


def test_dvc_works_with_git_without_it_and_again_with_it(checkout):
    status = [sys.executable, "-m", "dvc", "status"]
    Path("dvc.yaml").write_text("stages: {}\n")
    prepare_dvc()
    assert subprocess.run(status, capture_output=True, check=False).returncode == 0
    assert "no_scm" in Path(".dvc/config.local").read_text()
    subprocess.run(["git", "init", "-q"], check=True)
    prepare_dvc()
    assert "no_scm" not in Path(".dvc/config.local").read_text()
    assert subprocess.run(status, capture_output=True, check=False).returncode == 0
