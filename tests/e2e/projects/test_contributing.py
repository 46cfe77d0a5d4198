"""CONTRIBUTING.md, done as it says: all its walks in one copy of the project, through one run of the pipeline."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from reflux.components.core.artifacts import read_json
from tests.e2e.command import environment, reflux
from tests.workspaces import PACKAGE, ROOT, pack

PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
WALKS = [walk for walk in re.split(r"^### ", PAGE, flags=re.MULTILINE)[1:] if "```" in walk]
CHOICES = (
    "distill.method=[kd, logit-cosine]",
    "ingest.source=data/shapes.npz",
    "registry.gates.top2_accuracy.min=0.6",
    "student.optimizer=adam",
)


def blocks(walk: str) -> list[tuple[str, str, str]]:
    """The kind of each block of code, the file that it is of, and its text."""
    found = re.findall(r"^```(python|diff)\n(?:# )?(.*?)\n(.*?)^```", walk, re.MULTILINE | re.DOTALL)
    return [(kind, name, text) for kind, name, text in found]


def take(walk: str, project: Path) -> None:
    """Do what a walk says."""
    for kind, name, rest in blocks(walk):
        file = project / name
        if kind == "python":
            assert not file.exists(), f"{name} is there already"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(rest, encoding="utf-8")
            continue
        before, after = ("".join(f"{x[1:]}\n" for x in rest.splitlines() if x[:1] != mark) for mark in "+-")
        text = file.read_text(encoding="utf-8")
        assert text.count(before) == 1, f"{name} has {text.count(before)} places like\n{before}"
        file.write_text(text.replace(before, after), encoding="utf-8")


@pytest.fixture(scope="module")
def project(tmp_path_factory, tiny_project) -> Path:
    folder = tiny_project(tmp_path_factory.mktemp("contributing") / "shapes")
    (folder / "pyproject.toml").write_bytes((ROOT / "pyproject.toml").read_bytes())
    for walk in WALKS:
        take(walk, folder)
    pack(folder / "data/shapes")
    return folder


@pytest.fixture(scope="module")
def done(project) -> "subprocess.CompletedProcess[str]":
    return reflux(project, "run", *(part for choice in CHOICES for part in ("-S", choice)))


def test_the_walks_fit_the_code(tmp_path):
    for kind, name, _ in (block for walk in WALKS for block in blocks(walk)):
        if kind == "diff":
            copy = tmp_path / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, copy)
    for walk in WALKS:
        take(walk, tmp_path)
    assert "logit-cosine" in (tmp_path / "components/core/params/distill.py").read_text(encoding="utf-8")


@pytest.mark.long
def test_what_the_walks_add_works_in_one_run(project, done):
    assert done.returncode == 0, done.stdout + done.stderr
    history = pq.read_table(project / "artifacts/distill/history.parquet").to_pydict()
    assert history["train_logit-cosine"][-1] < history["train_logit-cosine"][0]
    assert read_json(project / "artifacts/ingest/dataset.json")["source"] == "data/shapes.npz"
    assert "balance: started" in done.stdout
    counts = read_json(project / "artifacts/balance/counts.json")
    assert set(counts["train"]) == {"flat", "wave", "check"}
    (gate,) = (
        reason
        for reason in read_json(project / "artifacts/promote/decision.json")["reasons"]
        if reason["gate"] == "top2_accuracy"
    )
    assert "Accuracy of the best two guesses" in gate["sentence"]
    assert "Speed" in reflux(project, "boards").stdout


@pytest.mark.long
def test_what_the_walks_add_passes_lint(project, tmp_path):
    # Without the links, which import-linter does not follow.
    shutil.copytree(project / PACKAGE, tmp_path / "linted", ignore=shutil.ignore_patterns("template"))
    commands = (
        "ruff check --no-cache components flows",
        "ruff format --no-cache --check components flows",
        "lint-imports --no-cache",
    )
    for command in commands:
        name, *arguments = command.split()
        tool = [Path(sys.executable).with_name(name), *arguments]
        checked = subprocess.run(
            tool,
            cwd=project,
            env=environment(project) | {"PYTHONPATH": str(tmp_path / "linted")},
            capture_output=True,
            text=True,
            check=False,
        )
        assert checked.returncode == 0, checked.stdout
