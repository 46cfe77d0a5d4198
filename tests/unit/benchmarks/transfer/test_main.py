"""The inputs and the table of the benchmark of self-training."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.harness.results import write
from benchmarks.transfer import __main__ as transfer
from reflux.components.core.contract import SPLITS
from reflux.components.core.images.shards import UNLABELED, open_shard


def test_each_digit_is_in_one_split_and_as_many_of_each_class_as_asked_for_have_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    transfer._write_inputs(5, seed=1)
    splits = {name: open_shard(Path("artifacts/ingest/shards", name)) for name in SPLITS}
    assert [len(splits[name]) for name in SPLITS] == [50, 200, 600, 947]
    assert np.bincount(splits["train"].labels).tolist() == [5] * 10
    assert set(splits["unlabeled"].labels) == {UNLABELED}
    assert len(np.unique(np.concatenate([shard.ids for shard in splits.values()]))) == 1797


def test_the_table_has_the_mean_of_each_arm_for_each_number_of_labels(tmp_path: Path):
    names = (*transfer.ARMS, "three rounds - one round")
    results = {labels: [dict.fromkeys(names, labels + seed) for seed in (0.0, 2.0)] for labels in transfer.LABELS}
    write("transfer", transfer.figures_of(results), tmp_path)
    text = transfer.section(tmp_path)
    assert text.startswith("| | 5 labels a class | 10 labels a class |\n| --- | ---: | ---: |\n")
    assert "| three rounds | 6.0 ± 12.7 | 11.0 ± 12.7 |\n" in text
