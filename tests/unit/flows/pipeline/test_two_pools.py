"""What goes from one pool to the other, by the project's own ``dvc.yaml``."""

import pytest

from benchmarks.harness.results import ROOT
from reflux.components.core.contract import TRAINING
from reflux.flows.pipeline import two_pools


@pytest.fixture(autouse=True)
def project(monkeypatch):
    monkeypatch.chdir(ROOT)


def test_the_training_gets_the_checked_data_without_the_test_split():
    assert two_pools.read(TRAINING) == [
        "artifacts/ingest/images.json",
        "artifacts/ingest/pretrain-source",
        "artifacts/ingest/pretraining.json",
        "artifacts/ingest/shards/train",
        "artifacts/ingest/shards/unlabeled",
        "artifacts/ingest/shards/val",
        "artifacts/ingest/source-domain",
        "artifacts/validate/passed",
        "artifacts/validate/unlabeled.json",
    ]
    assert "artifacts/ingest/shards/unlabeled" in two_pools.read(["finetune"]), "it may be self-trained"


def test_the_evaluation_gets_all_that_it_reads_without_the_soft_labels():
    there = {*two_pools.made(["ingest"]), *two_pools.brought_back()}
    assert set(two_pools.read(["compress", "evaluate"])) <= there
    assert "artifacts/label/manifest.json" in there
    assert "artifacts/label/store" not in there
