"""The doctor's report on machines and settings that are not as they should be."""

import ctypes
import os
import re
import shutil
import signal
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from reflux.flows.commands import doctor
from tests.workspaces import ROOT


def test_a_mac_is_told_to_use_linux_without_a_traceback(mlflow_home, monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.delattr(signal, "SIGXFSZ", raising=False)
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: object())  # no prctl in it
    findings = {finding.what: finding for finding in [*doctor._software(), *doctor._machine(), *doctor._project()]}
    assert findings["system"].fix == "reflux run needs Linux: use WSL or a container"
    assert findings["CPU"].observed == f"{os.cpu_count()} cores"


@pytest.mark.parametrize(
    ("wanted", "row", "fix"),
    [
        (
            "==0.0.9",
            "project's release",
            f"{version('reflux')} is installed: .*reflux.* upgrade brings the project to it",
        ),
        (f"=={version('reflux')}", "project's release", "$"),
        (">=0.0.9", "project's release", "$"),
        (
            "==99.1",
            "params.yaml, dataset",
            "This project is of Reflux 99.1, .*: install the wheel of the release that ",
        ),
    ],
)
def test_a_project_of_another_release_is_told_what_to_do(tmp_path, monkeypatch, wanted, row, fix):
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    Path("pyproject.toml").write_text(f'[project]\nname = "flowers"\ndependencies = ["reflux[tune]{wanted}"]\n')
    findings = {finding.what: finding for finding in doctor._project()}
    assert re.match(fix, findings[row].fix)


@pytest.mark.parametrize("uri", ["htp://mlflow", "file:///tmp/runs"])
def test_what_is_no_mlflow_is_a_finding_and_the_report_goes_on(mlflow_home, monkeypatch, uri):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    findings = {finding.what: finding for finding in doctor._servers()}
    assert f"MLFLOW_TRACKING_URI = {uri} is no MLflow server" in findings["MLflow"].fix
    assert "undelivered runs" in findings
