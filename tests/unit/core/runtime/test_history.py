from pathlib import Path

import pyarrow.parquet as pq

from reflux.components.core.runtime import history
from reflux.components.core.runtime.checkpoint import Checkpoints

ROW = {"step": 10, "images": 160, "lr": 0.1, "train_loss": 1.0, "train_mse-logits": 0.4, "val_accuracy": 0.5}


class Recorder:
    def __init__(self) -> None:
        self.rows: list[tuple[int, dict[str, float]]] = []

    def metrics(self, values: dict[str, float], step: int) -> None:
        self.rows.append((step, values))


def test_a_row_is_written_to_the_journal_once_and_after_the_phases_before_it(tmp_path: Path):
    journal, checkpoints = Recorder(), Checkpoints(tmp_path, "0" * 64, 1000)
    for _ in range(2):
        report = history.to_journal(journal, checkpoints, "full", begun=300)
        report(ROW)
    metrics = {"lr": 0.1, "train/loss": 1.0, "train/mse-logits": 0.4, "val/accuracy": 0.5}
    assert journal.rows == [(310, metrics)]


def test_phases_with_other_columns_are_one_table(tmp_path: Path):
    history.write(tmp_path / "history.parquet", {"probe": [{"step": 5, "lr": 0.2}], "full": [ROW]})
    table = pq.read_table(tmp_path / "history.parquet").to_pylist()
    assert [(row["phase"], row["step"], row["train_loss"]) for row in table] == [("probe", 5, None), ("full", 10, 1.0)]


def test_no_phases_are_an_empty_table(tmp_path: Path):
    history.write(tmp_path / "history.parquet", {})
    table = pq.read_table(tmp_path / "history.parquet")
    assert (table.num_rows, table.column_names) == (0, ["phase", "step", "images"])
