"""What a search for students and a bench of files leave in MLflow, on the board in a real browser."""

import io
import shutil

import numpy as np
import pytest
from PIL import Image, ImageColor

from reflux.components.advice.tune.__main__ import keep as keep_study
from reflux.components.advice.tune.figure import _FRONT, _GATE
from reflux.components.core.runtime import tracking
from reflux.components.core.runtime.journal import Journal
from reflux.components.observe.boards import declared, keep
from reflux.components.observe.boards.declared import BENCH_PICTURE
from reflux.flows.report.bench import log as log_bench
from tests.integration.observe.boards.runs import retrain
from tests.servers import mlflow_server
from tests.unit.advice.bench.test_report import report
from tests.unit.advice.tune.test_result import result, row

STUDY = result(row(0, 0.84, 190, 0.83), row(1, 0.8, 60, ships="onnx-int8"), row(2, 0.6, 9))


def log(study) -> None:
    """Log a study with its trials, as a search does."""
    journal = Journal("demo", "tune", {"run_kind": "tune"})
    for each in study.rows:
        trial = Journal("demo", f"trial {each.number}", {"run_kind": "tune trial"}, parent=journal.id)
        trial.metrics({f"tune/{figure}": value for figure, value in each.figures.items()})
        trial.end("FINISHED")
    keep_study(study, [{"trial": each.number} for each in study.rows], journal)
    journal.end("FINISHED")
    assert tracking.deliver() == 0


@pytest.mark.long
def test_a_study_is_shown_as_a_front_with_its_gates_and_files_in_their_runtimes(
    tmp_path, mlflow_template, monkeypatch, browser_page
):
    from playwright.sync_api import expect

    monkeypatch.chdir(tmp_path)
    shutil.copy(mlflow_template, "server.db")
    with mlflow_server(tmp_path, f"sqlite:///{tmp_path}/server.db") as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
        retrain()
        log_bench(report(), "demo")
        log(STUDY)
        assert keep.keep("demo", "In production: nothing yet.") == []
        browser_page.goto(f"{server.uri}/{declared.CHOOSE.link('1')}")
        cards = browser_page.get_by_test_id("experiment-view-compare-runs-card")
        front = cards.filter(has=browser_page.get_by_role("heading", name="tune/front", exact=True))
        front.locator("img").click(timeout=60_000)
        whole = browser_page.locator("img[src*='.png']")  # the card has a small copy
        expect(whole).to_be_visible(timeout=60_000)
        picture = browser_page.request.get(whole.evaluate("e => e.src")).body()
        gate, line = (pixels(picture, color) for color in (_GATE, _FRONT))
        assert gate.sum(axis=1).max() > 0.3 * gate.shape[1], "from left to right: the gate on the accuracy"
        assert gate.sum(axis=0).max() > 0.3 * gate.shape[0], "from top to bottom: the gate on the size"
        assert line.any(axis=0).sum() > 0.3 * line.shape[1], "the front leads from small to large files"
        browser_page.keyboard.press("Escape")
        title = browser_page.get_by_role("heading", name="tune/size_kb vs. tune/accuracy", exact=True)
        trials = cards.filter(has=title).locator(".js-plotly-plot")
        points = trials.evaluate("e => e.data.flatMap(t => [...t.x].map((x, i) => [x, t.y[i]]))")
        wanted = [[each.figures["size_kb"], each.figures["accuracy"]] for each in STUDY.rows]
        assert [point for point in wanted if point not in points] == []
        files = cards.filter(has=browser_page.get_by_role("heading", name=BENCH_PICTURE, exact=True))
        browser_page.get_by_role("button", name="Add section").scroll_into_view_if_needed()  # MLflow draws what is seen
        expect(files.locator("img")).to_be_visible(timeout=60_000)


def pixels(picture: bytes, color: str) -> np.ndarray:
    """Which pixels [H, W] of a picture have a color, or nearly so at the edge of a line."""
    with Image.open(io.BytesIO(picture)) as image:
        wanted = np.asarray(ImageColor.getrgb(color))
        return (np.abs(np.asarray(image.convert("RGB")).astype(int) - wanted) < 40).all(axis=2)
