"""`reflux run` with a source domain: each method ends in a decision, and another source domain is noticed."""

import shutil
from pathlib import Path

import pytest

from benchmarks.transfer.few_digits import MNIST, write_digits
from reflux.components.core.artifacts import read_json
from tests.e2e.command import reflux
from tests.e2e.models.other_sources import assert_a_change_is_noticed

pytestmark = pytest.mark.long

SETTINGS = """
    ingest.source=data/digits ingest.source_domain=data/mnist finetune.epochs=3 finetune.batch_size=32
    finetune.lr=0.01 finetune.augment.flip=false student.augment.flip=false student.steps=60
"""


def test_each_method_ends_in_a_decision_and_the_source_domains_images_count(tmp_path: Path, tiny_project):
    folder = tiny_project(tmp_path / "project")
    write_digits(folder / "data/digits", labels=5, seed=0)
    shutil.copytree(MNIST, folder / "data/mnist")
    for number, method in enumerate(("dan", "deep-coral", "dann"), 1):
        chosen = [
            each for assignment in (*SETTINGS.split(), f"finetune.adaptation={method}") for each in ("-S", assignment)
        ]
        done = reflux(folder, "run", *chosen)
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"shapes-student version {number} is" in done.stdout
        assert "test images of the source domain mnist the teacher reaches" in done.stdout
        assert read_json(folder / "artifacts/evaluate/metrics.json")["source_domain"]["accuracy"]["teacher"] > 0.3
    assert "validate: the source domain differs from the dataset in" in done.stdout
    assert "the source domain" in (folder / "artifacts/evaluate/model-card.md").read_text()
    assert_a_change_is_noticed(folder, "finetune")
    without = reflux(folder, "run", "-S", "ingest.source_domain=null")
    assert without.returncode == 2
    assert "finetune.adaptation = dann makes a labeled source domain" in without.stderr
    plain = reflux(folder, "run", "-S", "ingest.source_domain=null", "-S", "finetune.adaptation=none")
    assert plain.returncode == 0, plain.stdout + plain.stderr
