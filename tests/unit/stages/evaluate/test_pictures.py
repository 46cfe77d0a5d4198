import pyarrow as pa
import pyarrow.parquet as pq

from reflux.components.stages.evaluate import pictures


def test_the_images_of_a_history_run_on_over_its_phases(tmp_path):
    columns = {"images": [10, 20, 5, 15, 25], "phase": ["head", "head", "all", "all", "all"], "val_loss": [5.0] * 5}
    pq.write_table(pa.table(columns), tmp_path / "history.parquet")
    history = pictures.history(tmp_path / "history.parquet")
    assert history["images"].tolist() == [10, 20, 25, 35, 45]
    assert history["val_loss"].tolist() == [5.0] * 5
