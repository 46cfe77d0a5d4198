"""``reflux plan``, with real DVC and real data; the stages after ingest only write what tells their params apart."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ruamel.yaml import YAML

from reflux.components.advice.plan.times import measurements, stage_seconds
from reflux.components.core.artifacts import write_json
from reflux.components.core.contract import STAGES
from reflux.components.core.params.file import overridden, override_params
from reflux.components.core.runtime import installed, lineage
from reflux.components.core.runtime.machine import machine
from reflux.flows.local.environment import QUIET
from tests.workspaces import git, make_tiny_project, picture

pytestmark = pytest.mark.slow

STUB = """
import hashlib, sys
from pathlib import Path
stage, *outs = sys.argv[1:]
for out in map(Path, outs):
    same = out.name in ("passed", "unlabeled.json", "source-domain", "pretrain-source")
    text = "" if same else hashlib.sha256(Path("params.yaml").read_bytes() + stage.encode()).hexdigest()
    if not out.suffix and out.name != "passed":
        out.mkdir(parents=True)
        out /= "file"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text('{"machine": "another", "wall_s": 1}' if out.name == "run.json" else text)
"""


def dvc(folder: Path, *arguments: str) -> None:
    environment = {**os.environ, **QUIET, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=folder, check=True, env=environment)


@pytest.fixture(scope="module")
def untouched(tmp_path_factory) -> Path:
    """A project under git, on a machine whose speed is known, in which nothing has run yet."""
    folder = make_tiny_project(tmp_path_factory.mktemp("plan") / "project")
    yaml = YAML()
    pipeline = yaml.load(folder / "dvc.yaml")
    for name in [name for name in STAGES if name != "ingest"]:
        stage = pipeline["stages"][name]
        stage["cmd"] = " ".join(["python stub.py", name, *stage["outs"], *stage.get("metrics", [])])
    pipeline["stages"]["installed"]["cmd"] = pipeline["stages"]["installed"]["cmd"][0]
    yaml.dump(pipeline, folder / "dvc.yaml")
    (folder / "stub.py").write_text(STUB)
    params = override_params(["run.device=cpu"], folder / "params.yaml")
    here = Path.cwd()
    os.chdir(folder)
    for shared in (True, False):
        for name, speed in measurements(params, 3, shared).items():
            seconds = 2.0 if name == "start" else 0.001
            write_json(speed.of.file(*speed.arguments), {"load": 0, "seconds": seconds})
    os.chdir(here)
    git(folder, "init", "-q")
    dvc(folder, "remote", "add", "-q", "-d", "store", str(folder.parent / "remote"))
    dvc(folder, "add", "-q", "data/shapes")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "project")
    return folder


@pytest.fixture(scope="module")
def finished(untouched, tmp_path_factory) -> Path:
    """The same after a run, which is also on DVC's remote."""
    folder = tmp_path_factory.mktemp("finished") / "project"
    shutil.copytree(untouched, folder, symlinks=True)
    dvc(folder, "repro", "-q")
    dvc(folder, "push", "-q", "--run-cache")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "run")
    return folder


@pytest.fixture
def project(finished, tmp_path, monkeypatch) -> Path:
    shutil.copytree(finished, tmp_path / "project", symlinks=True)
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"


def contents(folder: Path) -> dict[str, str]:
    """The hash of every file of a project but DVC's and git's own."""
    files = [file for file in folder.rglob("*") if file.is_file() and not {".dvc", ".git", ".reflux"} & {*file.parts}]
    return {str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


@pytest.fixture
def plan(call_reflux):
    """Plans in the working folder; returns each stage's line, and all that was printed."""

    def call(*assignments: str) -> tuple[dict[str, str], str]:
        before = contents(Path.cwd())
        code, out, err = call_reflux("plan", *(word for one in assignments for word in ("-S", one)))
        assert code == 0, err
        assert contents(Path.cwd()) == before, "a plan changes nothing"
        lines = {line.split()[0]: " ".join(line.split()) for line in out.splitlines() if line.strip()}
        return {name: lines[name].removeprefix(f"{name} ") for name in STAGES}, out

    return call


def fates(lines: dict[str, str]) -> dict[str, str]:
    return {name: line.split()[0] for name, line in lines.items()}


def test_nothing_has_run_yet(untouched, monkeypatch, plan):
    monkeypatch.chdir(untouched)
    lines, out = plan()
    for line in lines.values():
        assert re.fullmatch(r"computed it was not computed before \d+ s", line)
    assert "will take about" in out
    assert "Student and control train at the same time." in out


def test_after_a_run_nothing_is_left_to_do(project, plan):
    lines, out = plan()
    assert set(lines.values()) == {"unchanged"}
    assert "Nothing has changed" in out


def test_a_param_that_is_not_written_yet(project, plan):
    lines, _ = plan("student.steps=80")
    assert lines["label"].startswith("computed student.steps: 40 → 80 ")
    assert lines["distill"].startswith("computed student.steps: 40 → 80; label changes ")
    assert lines["control"].startswith("computed student.steps: 40 → 80 ")
    assert lines["compress"].startswith("computed distill and control change ")
    assert lines["evaluate"].startswith("computed compress, distill and control change ")
    rest = [name for name in STAGES if name not in ("label", "distill", "control", "compress", "evaluate")]
    assert {lines[name] for name in rest} == {"unchanged"}
    assert fates(plan("run.threads=1")[0]) == dict.fromkeys(STAGES, "unchanged"), "hardware is no dependency"


def test_another_dataset_that_is_not_written_yet(project, plan):
    shutil.copytree("data/shapes", "data/others")
    shutil.rmtree("data/others/unlabeled")
    lines, _ = plan("ingest.source=data/others")
    assert "ingest.source: data/shapes → data/others" in lines["ingest"]
    assert fates(lines) == {**dict.fromkeys(STAGES, "computed"), "pretrain": "unchanged"}


@pytest.mark.long
def test_how_long_a_stage_took_counts_for_the_dataset_that_it_worked_on_alone(project, plan):
    def seconds(lines: dict[str, str]) -> int:
        return int(re.search(r"(\d+) s$", lines["control"])[1])

    shutil.copytree("data/shapes", "data/others")
    foreseen = seconds(plan("student.steps=41")[0])
    params = overridden([])[1]
    speeds = {name: each.kept() for name, each in measurements(params, 3).items()}
    alone = stage_seconds(params, {"train": 60, "val": 30, "test": 60, "unlabeled": 15}, speeds)["control"]
    write_json(Path("artifacts/control/run.json"), {"machine": machine(), "wall_s": 1.5 * alone})
    assert seconds(plan("student.steps=41")[0]) > 1.5 * foreseen
    assert seconds(plan("student.steps=41", "ingest.source=data/others")[0]) == foreseen


def test_new_unlabeled_images_train_neither_teacher_nor_control(project, plan):
    for number in (1, 2):
        picture("wave", np.random.default_rng(number)).save(f"data/shapes/unlabeled/new-{number}.png")
    lines, _ = plan()
    assert lines["ingest"].startswith("computed data in data/shapes; 2 unlabeled added ")
    assert lines["label"].startswith("computed ingest changes ")
    again = {"ingest", "validate", "label", "distill", "compress", "evaluate"}
    assert {name for name, fate in fates(lines).items() if fate == "computed"} == again
    assert {lines[name] for name in STAGES if name not in again} == {"unchanged"}


def test_a_changed_training_image_trains_everything(project, plan):
    file = next(Path("data/shapes/train/wave").iterdir())
    picture("wave", np.random.default_rng(9)).save(file)
    lines, _ = plan()
    assert "1 train added, 1 train removed" in lines["ingest"]
    assert fates(lines) == {**dict.fromkeys(STAGES, "computed"), "pretrain": "unchanged"}


def test_another_release_of_a_package_is_named(project, plan, monkeypatch):
    now = installed.releases()
    upgraded = now | {"compress": now["compress"] | {"onnxruntime": "99.0"}}
    monkeypatch.setattr(installed, "releases", lambda ships: upgraded)
    lines, _ = plan()
    assert lines["compress"].startswith(f"computed onnxruntime: {now['compress']['onnxruntime']} → 99.0 ")
    assert {name for name, fate in fates(lines).items() if fate == "computed"} == {"compress", "evaluate"}
    assert set(plan("run.retrain_on_upgrade=false")[0].values()) == {"unchanged"}


def test_changed_code_is_named(project, plan, monkeypatch):
    monkeypatch.setattr(lineage, "COMPONENTS", project / "components")
    with Path("components/stages/control/__main__.py").open("a") as file:
        file.write("# edited\n")
    lines, _ = plan()
    assert lines["control"].startswith("computed code in components/stages/control ")
    assert {name for name, fate in fates(lines).items() if fate == "computed"} == {"control", "compress", "evaluate"}


@pytest.mark.long
def test_what_was_computed_before_is_restored(project, plan):
    before = Path("params.yaml").read_text()
    override_params(["student.steps=80"])
    dvc(project, "repro", "-q")
    Path("params.yaml").write_text(before)
    lines, _ = plan()
    assert lines["distill"].startswith("restored student.steps: 80 → 40; label changes; an earlier run's ")
    assert lines["evaluate"].startswith("restored compress, distill and control change; an earlier run's")
    assert "computed" not in fates(lines).values()


def test_lost_results_come_from_dvcs_cache_or_are_computed(project, plan):
    shutil.rmtree("artifacts/finetune")
    assert plan()[0]["finetune"].startswith("restored an earlier run's result ")
    shutil.rmtree(".dvc/cache")
    dvc(project, "remote", "remove", "store")
    lines, _ = plan()
    assert lines["pretrain"].startswith("computed its result is no longer kept ")


@pytest.mark.long
def test_a_fresh_clone_restores_everything_from_dvcs_remote(finished, tmp_path, monkeypatch, plan):
    git(tmp_path, "clone", "-q", str(finished), "clone")
    monkeypatch.chdir(tmp_path / "clone")
    lines, _ = plan()
    for line in lines.values():
        assert line.startswith("restored from DVC's remote store ")
    shutil.copytree(finished / ".reflux", ".reflux")
    lines, _ = plan("student.steps=80")
    assert fates(lines)["finetune"] == "restored"
    assert fates(lines)["distill"] == "computed"


def test_a_remote_that_is_away_is_one_sentence(finished, tmp_path, monkeypatch, call_reflux):
    pytest.importorskip("dvc_s3")
    git(tmp_path, "clone", "-q", str(finished), "clone")
    monkeypatch.chdir(tmp_path / "clone")
    dvc(tmp_path / "clone", "remote", "add", "-q", "-f", "-d", "store", "s3://nothing")
    dvc(tmp_path / "clone", "remote", "modify", "store", "endpointurl", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "nothing")
    code, _, err = call_reflux("plan")
    assert code == 2
    assert err.startswith("Error: DVC's remote store does not answer (")


def test_params_that_are_refused_are_one_sentence(project, call_reflux):
    code, _, err = call_reflux("plan", "-S", "studnt.steps=3")
    assert code == 2
    assert err == "Error: -S: studnt is not a parameter; did you mean student?\n"
