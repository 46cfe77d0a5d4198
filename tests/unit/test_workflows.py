"""The workflows of GitHub, as far as they can be tried without it: form, commands, and whose code they run."""

import os
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
from check_jsonschema.builtin_schemas import get_builtin_schema
from jsonschema import Draft7Validator
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
TEMPLATE = ROOT / "infra/package/reflux/template/github/workflows/check.yml"
FILES = [*sorted((ROOT / ".github/workflows").glob("*.yml")), TEMPLATE]
RELEASE = ROOT / ".github/workflows/release.yml"
READS = {"contents": "read"}


def read(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    return document


def steps(path: Path) -> list[dict[str, Any]]:
    return [step for job in read(path)["jobs"].values() for step in job["steps"]]


def commands(path: Path) -> list[str]:
    """What each step runs, with a word in the place of what GitHub fills in."""
    return [re.sub(r"\$\{\{.*?\}\}", "filled-in", step["run"]) for step in steps(path) if "run" in step]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_workflow_fits_the_published_schema(path):
    errors = list(Draft7Validator(get_builtin_schema("vendor.github-workflows")).iter_errors(read(path)))
    assert not errors, errors


def test_actions_are_commits_with_their_release_each_one_everywhere():
    """A tag of an action is whatever its owner, or who has got at it, moves it to."""
    used = {line for path in FILES for line in re.findall(r"uses: (.*)", path.read_text(encoding="utf-8"))}
    loose = {line for line in used if not re.fullmatch(r"[\w/-]+@[0-9a-f]{40}  # v\d+\.\d+\.\d+", line)}
    assert not loose
    names = [line.partition("@")[0] for line in used]
    assert sorted(names) == sorted(set(names)), "an action of two commits"
    assert read(ROOT / ".github/dependabot.yml")["updates"][0]["package-ecosystem"] == "github-actions"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_workflow_may_read_and_what_may_write_runs_no_code_of_the_repository(path):
    workflow = read(path)
    assert workflow["permissions"] == READS
    for job in workflow["jobs"].values():
        does = [step.get("uses", "").partition("@")[0] for step in job["steps"]]
        if "permissions" in job:
            assert "actions/checkout" not in does
        for step in job["steps"]:
            if step.get("uses", "").startswith("actions/checkout@"):
                assert step["with"]["persist-credentials"] is False


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_what_a_workflow_runs_is_bash_and_names_what_is_there(path):
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    for text in commands(path):
        parsed = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True, check=False)
        assert not parsed.stderr, text
        assert set(re.findall(r"\bmake ([\w-]+)", text)) <= set(targets), text
        for named in re.findall(r"'\.\[([\w,]+)\]'", text):
            assert set(named.split(",")) <= set(extras), text
        for script in re.findall(r"^(\.\w+/\w+)$", text, re.MULTILINE):
            assert os.access(ROOT / script, os.X_OK), text


def test_what_can_publish_is_installed_by_hash():
    installs = [line for text in commands(RELEASE) for line in text.splitlines() if "pip install" in line]
    assert installs
    for line in installs:
        assert "--require-hashes -r infra/locked/" in line or "--constraint dist-notes/constraints.txt dist/" in line
    assert "python -m build --no-isolation" in "\n".join(commands(RELEASE))


def test_each_job_waits_for_the_one_whose_files_it_takes():
    jobs = read(RELEASE)["jobs"]
    given: dict[str, set[str]] = {}
    for name, job in jobs.items():
        before, todo = set(), [job.get("needs")]
        while (needed := todo.pop()) is not None:
            before.add(needed)
            todo.append(jobs[needed].get("needs"))
        for step in job["steps"]:
            wanted = step.get("with", {})
            if step.get("uses", "").startswith("actions/upload-artifact@"):
                given.setdefault(name, set()).add(wanted["name"])
            if step.get("uses", "").startswith("actions/download-artifact@"):
                there = set().union(*(given.get(each, set()) for each in before))
                assert there, name
                assert wanted.get("name", "dist") in there
