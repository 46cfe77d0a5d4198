"""MNIST teaches scikit-learn's digits: ingested, validated and adapted by each method."""

import shutil
from contextlib import chdir
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from benchmarks.transfer.few_digits import MNIST, write_digits
from reflux.components.core.data.shards import open_shard
from reflux.components.core.errors import UserError
from reflux.components.core.params.file import check_overrides
from reflux.components.core.runtime.stage import Stage
from reflux.components.stages.finetune.__main__ import main as finetune
from reflux.components.stages.ingest.__main__ import main as ingest
from reflux.components.stages.pretrain.__main__ import main as pretrain
from reflux.components.stages.validate.__main__ import main as validate
from tests.workspaces import ROOT

pytestmark = pytest.mark.long

SETTINGS = (
    *("ingest.source=data/digits", f"ingest.source_domain={MNIST}", "ingest.image_size=16", "run.threads=1"),
    *("pretrain.model=resnet8", "pretrain.weights=random", "finetune.strategy=full", "finetune.image_size=16"),
    *("finetune.epochs=5", "finetune.batch_size=32", "finetune.lr=0.01", "finetune.freeze_batch_norm=false"),
    *("finetune.layer_decay=1", "finetune.augment={shift: 0.1, flip: false}"),
)


def run(stage: str, *settings: str) -> None:
    main = {"ingest": ingest, "validate": validate, "pretrain": pretrain, "finetune": finetune}[stage]
    Path("artifacts", stage).mkdir(parents=True, exist_ok=True)
    main(Stage(stage, check_overrides([*SETTINGS, *settings])))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace up to the pretrained network."""
    folder = tmp_path_factory.mktemp("digits")
    write_digits(folder / "data/digits", labels=2, seed=0)
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / name, folder)
    with chdir(folder):
        for stage in ("ingest", "pretrain"):
            run(stage)
    return folder


@pytest.fixture
def here(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(prepared)
    return prepared


def test_both_datasets_are_ingested_alike(here: Path):
    shards = [here / "artifacts/ingest" / part / "shards/train" for part in ("", "source-domain")]
    target, source = map(open_shard, shards)
    assert target.images.shape == (20, 16, 16, 1)
    assert source.images.shape[1:] == (16, 16, 1)
    assert set(source.labels) == set(target.labels) == set(range(10))
    held_out = open_shard(here / "artifacts/ingest/source-domain/shards/test")
    assert len(held_out) == pytest.approx(1000, abs=5)


def test_validation_says_how_different_they_look(here: Path, capsys: pytest.CaptureFixture[str]):
    run("validate")
    said = capsys.readouterr().out
    assert "Note: the source domain differs from the dataset in " in said
    assert all(word in said for word in ("brightness (", "contrast ("))


@pytest.mark.parametrize("method", ["none", "dan", "deep-coral", "dann"])
def test_the_teacher_reads_digits_with_two_labels_a_class(here: Path, method: str):
    # At a weight of 1 dann ends anywhere, by seed and processor: from 8 to 80 % (at 0.1 from 84 to 90).
    run("finetune", f"finetune.adaptation={method}", "finetune.adaptation_weight=0.1")
    history = pq.read_table("artifacts/finetune/history.parquet").to_pandas()
    assert history["val_accuracy"].iloc[-1] > 0.5
    if method != "none":
        assert np.isfinite(history[f"train_{method}"]).all()


def test_a_source_domain_of_other_classes_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_digits(tmp_path / "data/digits", labels=2, seed=0)
    for split in ("train", "test"):
        table = pq.read_table(MNIST / f"{split}.parquet").to_pandas()
        table["label"] = [f"digit {label}" for label in table["label"]]
        (tmp_path / "data/named").mkdir(exist_ok=True)
        table.to_parquet(tmp_path / f"data/named/{split}.parquet")
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"lacks 0, 1, 2 .* and has digit 0, digit 1"):
        run("ingest", "ingest.source_domain=data/named")
    assert not Path("artifacts/ingest/source-domain").exists()
