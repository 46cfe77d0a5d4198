import io
from dataclasses import replace

import mlflow
import pytest
from rich.console import Console

from reflux.components.advice.teachers.result import PICTURE, Ranking, Row, write
from reflux.components.core.artifacts import write_json
from reflux.components.core.runtime import tracking
from reflux.flows.report.teachers import log, reason, sentences, table

BEST = Row(
    **{"name": "large", "model": "resnet50", "weights": "timm", "license": "cc-by-nc-4.0", "image_size": 224},
    **{"accuracy": 0.86, "low": 0.83, "high": 0.88, "recalls": (0.9, None), "p_value": 1.0, "parameters": 23_000_000},
    **{"seconds": 31.4, "run_seconds": 600.0, "commercial": False, "knows": True},
)
SMALL = replace(BEST, name="small", weights="x.pth", license=None, image_size=80, accuracy=0.85, p_value=0.4)
SMALL = replace(SMALL, seconds=1.23, run_seconds=90.0, commercial=True, knows=False)
RANKING = Ranking((BEST, SMALL), ("a", "b"), 500, 1000, ("huge at 224 pixels: it takes too long",))


def test_the_table_has_a_row_each_and_marks_what_is_not_for_sale():
    screen = Console(file=io.StringIO(), width=160)
    screen.print(table(RANKING))
    lines = [" ".join(line.split()) for line in screen.file.getvalue().splitlines()]
    assert lines[1:] == [
        "large timm 224 86.0 % 83.0 … 88.0 23,000,000 31 10 min 00 s cc-by-nc-4.0 (not commercial)",
        "small file 80 85.0 % 83.0 … 88.0 -1.0 (p 0.4) 23,000,000 1.2 1 min 30 s not known",
    ]


def test_the_sentences_name_the_cheapest_and_what_is_doubtful():
    said = sentences(RANKING)
    assert any(sentence.endswith("than the best: small at 80 pixels.") for sentence in said)
    assert "Warning: large may have been trained on these images, and then looks too good." in said
    assert said[-1] == "Left out: huge at 224 pixels: it takes too long"


@pytest.mark.parametrize(("row", "place"), [(BEST, "the best of 2"), (SMALL, "number 2 of 2")])
def test_the_reason_has_the_interval_and_the_place(row, place):
    shown = f"{100 * row.accuracy:.1f}% (83.0 to 88.0) of 500 images, {place}"
    assert reason(RANKING, row) == f"reflux teachers: a linear probe gets {shown}"


@pytest.mark.slow
def test_each_row_is_a_child_run(mlflow_home):
    write(RANKING)
    write_json(PICTURE, {})
    log(RANKING, "shapes")
    assert tracking.deliver() == 0
    client = mlflow.MlflowClient()
    runs = client.search_runs([client.get_experiment_by_name("shapes").experiment_id])
    parent = next(run for run in runs if run.data.tags["run_kind"] == "teachers")
    assert {file.path for file in client.list_artifacts(parent.info.run_id)} == {"ranking.json", "teachers.png"}
    children = {run.info.run_name: run for run in runs if run is not parent}
    assert set(children) == {"large at 224 px", "small at 80 px"}
    assert {run.data.tags["mlflow.parentRunId"] for run in children.values()} == {parent.info.run_id}
    small = children["small at 80 px"].data
    assert small.params == {"pretrain.model": "resnet50", "pretrain.weights": "x.pth", "finetune.image_size": "80"}
    assert small.metrics["probe/accuracy"] == 0.85
    assert small.metrics["probe/recall/0"] == 0.9
    assert "probe/recall/1" not in small.metrics
