"""The digits that the benchmarks of transfer learn from."""

from pathlib import Path

from benchmarks.transfer.few_digits import write_digits
from reflux.components.stages.ingest.source import open_source


def test_as_many_digits_of_each_class_as_asked_for_have_labels(tmp_path: Path):
    write_digits(tmp_path / "digits", labels=5, seed=1)
    items = list(open_source(tmp_path / "digits").items)
    assert len({item.data for item in items}) > 1700, "few are drawn alike"
    assert [sum(item.split == "train" and item.label == number for item in items) for number in range(10)] == [5] * 10
    counts = [sum(item.split == split for item in items) for split in ("val", "test", "unlabeled")]
    assert counts == [200, 600, 947]
