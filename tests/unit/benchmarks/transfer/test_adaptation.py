"""The inputs and the table of the benchmark of domain adaptation."""

from pathlib import Path

import pytest

from benchmarks.harness.results import write
from benchmarks.transfer import adaptation
from reflux.components.ingest.source import open_source


def test_as_many_digits_of_each_class_as_asked_for_have_labels(tmp_path: Path):
    adaptation.write_digits(tmp_path / "digits", labels=5, seed=1)
    items = list(open_source(tmp_path / "digits").items)
    assert len({item.data for item in items}) > 1700, "few are drawn alike"
    assert [sum(item.split == "train" and item.label == number for item in items) for number in range(10)] == [5] * 10
    counts = [sum(item.split == split for item in items) for split in ("val", "test", "unlabeled")]
    assert counts == [200, 600, 947]


@pytest.mark.parametrize("labels", adaptation.LABELS)
def test_every_arm_takes_about_as_many_steps(labels: int):
    images = 10 * labels
    alone = adaptation.epochs(adaptation.ALONE, labels) * max(1, images // min(adaptation.BATCH, images))
    others = adaptation.epochs(adaptation.SOURCE, labels) * ((images + 850) // (2 * adaptation.BATCH))
    assert alone == pytest.approx(others, rel=0.03)


def test_the_table_has_each_arm_and_what_it_gains_over_the_sources_labels(tmp_path: Path):
    seeds = [{arm: number + seed for number, arm in enumerate(adaptation.ARMS)} for seed in (0.0, 2.0)]
    write("adaptation", adaptation.figures_of(dict.fromkeys(adaptation.LABELS, seeds)), tmp_path)
    text = adaptation.section(tmp_path)
    assert text.startswith("| | 1 label a class | 5 labels a class |\n")
    assert "| dann | 6.0 ± 12.7 | 6.0 ± 12.7 |\n" in text
    assert "| dann - and source labels | 3.0 ± 0.0 |" in text
