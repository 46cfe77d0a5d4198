"""`reflux run` without a labeled training image: a teacher that knows the classes by name, to a decision."""

import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from reflux.components.core.artifacts import read_json
from tests.e2e.command import reflux
from tests.pairs import write_pair

pytestmark = pytest.mark.long

NAMES = "classes: {flat: a smooth square, wave: stripes, check: a chessboard}\nprompts: ['a picture of {}.', '{}']\n"


def test_the_student_learns_from_a_teacher_that_knows_names_alone(tmp_path: Path, tiny_project):
    pytest.importorskip("open_clip")
    folder = tiny_project(tmp_path / "project")
    for kind in ("flat", "wave", "check"):
        for file in (folder / "data/shapes/train" / kind).iterdir():
            file.rename(folder / "data/shapes/unlabeled" / f"train-{file.name}")
    shutil.rmtree(folder / "data/shapes/train")
    settings = ["pretrain.mode=zero-shot", "pretrain.weights=open_clip", "finetune.strategy=none"]
    settings.append(f"pretrain.model={write_pair(folder / 'pair').replace(str(folder / 'pair'), 'pair')}")
    chosen = [each for assignment in settings for each in ("-S", assignment)]
    before = (folder / "params.yaml").read_bytes()
    unlabeled = reflux(folder, "run")
    assert unlabeled.returncode == 2
    assert "finetune.strategy = full learns labels, and no training image has one" in unlabeled.stderr
    unnamed = reflux(folder, "run", *chosen)
    assert unnamed.returncode == 2
    assert "pretrain.classes = classes.yaml can't be read" in unnamed.stderr
    assert (folder / "params.yaml").read_bytes() == before

    (folder / "classes.yaml").write_text(NAMES)
    done = reflux(folder, "run", *chosen)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "shapes-student version 1 is" in done.stdout
    assert "No training image has a label, so that the control is the student before its training" in done.stdout
    metrics = read_json(folder / "artifacts/evaluate/metrics.json")
    assert metrics["control_untrained"]
    predictions = pq.read_table(folder / "artifacts/evaluate/predictions.parquet").to_pandas()
    assert (predictions["shipped"] == predictions["teacher"]).mean() > 0.6, "it has learned what its teacher says"
    card = (folder / "artifacts/evaluate/model-card.md").read_text()
    assert "knows the classes by name" in card
    assert "The control is the student before its training" in card
    again = reflux(folder, "run")
    assert "No stage's data, params or code has changed" in again.stdout
    (folder / "classes.yaml").write_text(NAMES.replace("stripes", "waves of the sea"))
    changed = reflux(folder, "run")
    assert changed.returncode == 0, changed.stdout + changed.stderr
    assert "pretrain: started" in changed.stdout
    assert "distill: started" in changed.stdout
