"""What a change of data or packages reruns, and what comes out the same: ``dvc repro`` of a tiny project."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from reflux.components.core.artifacts import read_json, sha256_file
from reflux.components.core.contract import STAGES, TRAINING
from reflux.components.core.params.file import override_params
from tests.e2e.command import environment, reflux
from tests.workspaces import make_tiny_project, picture

pytestmark = pytest.mark.long

FROM_THE_TEACHER = {"finetune", "label", "distill", "compress", "evaluate"}


def dvc_repro(folder: Path) -> "subprocess.CompletedProcess[str]":
    """Bring the pipeline up to date by DVC alone."""
    variables = environment(folder)
    # DVC starts `python`: it must be the one that runs the tests.
    variables["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), variables["PATH"]])
    command = [sys.executable, "-m", "dvc", "repro"]
    return subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=False)


def repro(folder: Path) -> tuple[set[str], str]:
    """The same, which ends well; returns the stages that ran, and what was printed."""
    done = dvc_repro(folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return set(re.findall(r"Running stage '(\w+)'", done.stdout)) - {"installed"}, done.stdout


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny project, with all that DVC computes for it."""
    folder = make_tiny_project(tmp_path_factory.mktemp("changed") / "one")
    (folder / ".dvc/config.local").write_text("[core]\n    no_scm = true\n")
    override_params(["run.deterministic=true"], folder / "params.yaml")
    assert "soft labels: 150 computed, 0 reused\n" in repro(folder)[1]
    return folder


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    return shutil.copytree(finished, tmp_path / "copy", symlinks=True)


def computed(folder: Path) -> dict[str, str]:
    """The sha256 of all weights, soft labels, shipped files and predictions."""
    wanted = ("model.safetensors", "*.onnx", "0*.npy", "predictions.parquet")
    files = sorted(file for name in wanted for file in (folder / "artifacts").rglob(name) if "shards" not in file.parts)
    return {str(file.relative_to(folder)): sha256_file(file) for file in files}


def add(folder: Path, place: str, count: int) -> None:
    """Add new images to a folder of the dataset."""
    rng = np.random.default_rng(99)
    for index in range(count):
        picture("wave", rng).save(folder / "data/shapes" / place / f"new-{index}.png")


def test_without_a_change_nothing_runs(copy: Path):
    assert repro(copy)[0] == set()


def test_new_unlabeled_images_alone_are_labeled_and_the_teacher_and_the_control_stay(copy: Path):
    add(copy, "unlabeled", 3)
    ran, printed = repro(copy)
    assert ran == {"ingest", "validate", "label", "distill", "compress", "evaluate"}
    assert "soft labels: 6 computed, 150 reused\n" in printed


def test_new_unlabeled_images_train_a_teacher_again_that_learns_from_them(copy: Path):
    override_params(["finetune.rounds=2", "finetune.round_epochs=1"], copy / "params.yaml")
    assert {"validate", "finetune"} <= repro(copy)[0]
    add(copy, "test/wave", 2)
    assert repro(copy)[0] == {"ingest", "validate", "evaluate"}
    add(copy, "unlabeled", 3)
    assert "finetune" in repro(copy)[0]


def test_new_test_images_change_nothing_but_the_evaluation(copy: Path):
    add(copy, "test/wave", 2)
    assert repro(copy)[0] == {"ingest", "validate", "evaluate"}


@pytest.mark.long
def test_a_new_labeled_image_makes_a_new_teacher_and_with_it_all_soft_labels_which_is_said(copy: Path):
    add(copy, "train/wave", 1)
    ran, printed = repro(copy)
    assert ran == {"ingest", "validate", "control", *FROM_THE_TEACHER}
    assert "soft labels: 152 computed, 0 reused, because of another teacher\n" in printed


def computed_with_another_torch(folder: Path) -> None:
    """Have all results be of an older release of torch, as far as DVC knows."""
    lock = folder / "dvc.lock"
    release = read_json(folder / "artifacts/installed.json")["finetune"]["packages"]["torch"]
    lock.write_text(lock.read_text().replace(f"torch: {release}", "torch: 2.0.1"))
    assert lock.read_text().count("torch: 2.0.1") == len(TRAINING) + 2
    shutil.rmtree(folder / ".dvc/cache/runs")


@pytest.mark.long
def test_a_new_release_of_torch_computes_again_what_depends_on_it_once(copy: Path):
    computed_with_another_torch(copy)
    assert repro(copy)[0] == {*TRAINING, "compress", "evaluate"}
    assert repro(copy)[0] == set()


@pytest.mark.long
def test_a_param_keeps_what_an_older_torch_has_computed_and_the_run_says_so(copy: Path):
    computed_with_another_torch(copy)
    done = reflux(copy, "run", "-S", "run.retrain_on_upgrade=false")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "nothing was trained" in done.stdout
    assert "Note: torch 2.0.1 is now " in done.stdout
    assert "results of the old release are kept, as run.retrain_on_upgrade is false." in done.stdout
    assert repro(copy)[0] == set()


@pytest.mark.long
def test_the_same_machine_gives_the_same_bits_again(finished: Path, tmp_path: Path):
    """From an empty cache, with ``run.deterministic``."""
    results = shutil.ignore_patterns("artifacts", "cache", "tmp", "dvc.lock", ".reflux")
    folder = shutil.copytree(finished, tmp_path / "again", symlinks=True, ignore=results)
    assert len(repro(folder)[0]) == len(STAGES)
    files = computed(finished)
    assert len(files) == 8
    assert computed(folder) == files


@pytest.mark.parametrize(
    ("assignment", "sentence"),
    [
        ("student.model=resnet8_slm", "Error: No model is named resnet8_slm; did you mean resnet8_slim"),
        ("registry.gates.size_kb.max=1", "Error: registry.gates.size_kb.max = 1 can't be passed"),
    ],
)
def test_what_can_be_known_before_training_is_refused_by_dvc_alone(copy: Path, assignment: str, sentence: str):
    override_params([assignment, "finetune.lr=0.003"], copy / "params.yaml")
    done = dvc_repro(copy)
    assert done.returncode != 0
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert "reflux.components.stages.finetune" not in done.stdout
