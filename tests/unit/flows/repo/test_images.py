from pathlib import Path

import pytest

from reflux.components.core.params.sections import Ingest
from reflux.flows.repo.images import Images, counts_of, look
from tests.datasets import class_folders, run_ingest


@pytest.mark.parametrize(
    ("given", "counts"),
    [
        ({"": 100}, (70, 10, 20, 0)),
        ({"": 100, "unlabeled": 40}, (70, 10, 20, 40)),
        ({"train": 100, "test": 30}, (90, 10, 30, 0)),
        ({"train": 60, "val": 20, "test": 20}, (60, 20, 20, 0)),
        ({"train": 100, "val": 20}, (80, 20, 20, 0)),
        ({"train": 50, "": 50, "test": 7}, (90, 10, 7, 0)),
    ],
)
def test_splits_that_the_dataset_lacks_come_from_its_training_images(given, counts):
    assert (
        tuple(counts_of(given, val=0.1, test=0.2)[split] for split in ("train", "val", "test", "unlabeled")) == counts
    )


def test_the_difference_is_said_by_split():
    images = Images({}, 2, added={"": 2, "unlabeled": 1200}, removed={"test": 1})
    assert images.difference() == "2 labeled added, 1,200 unlabeled added, 1 test removed"


def test_an_image_that_was_left_out_is_not_new_even_if_its_name_is_a_formula(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    class_folders(Path("data"))
    Path("data/cat").rename("data/=cmd")
    Path("data/=cmd/bad.png").write_text("no image")
    run_ingest(Path("data"), Path("artifacts/ingest"))
    assert look(Ingest(source="data")).difference() == ""
