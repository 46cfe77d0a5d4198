"""Twelve retrains on the boards, in a real browser against a server that is restarted."""

import re
from pathlib import Path

import pytest

from reflux.components.observe.boards import declared as boards
from reflux.flows.local.prefect_server import free_port
from tests.e2e.command import reflux
from tests.servers import mlflow_server

pytestmark = pytest.mark.long

RETRAINS = 12


@pytest.fixture(scope="module")
def project(tmp_path_factory, tiny_project) -> Path:
    """A project that has retrained twelve times: with another seed, or with measurements that are new or restored."""
    folder = tiny_project(tmp_path_factory.mktemp("history") / "shapes")
    for number in range(RETRAINS):
        setting = f"seed={number}" if number % 4 == 0 else f"evaluate.latency_runs={20 + number % 2}"
        done = reflux(folder, "run", "-S", setting)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "Note: " not in done.stdout.replace("Note: Lineage", "")
    return folder


def retrains(folder: Path) -> list:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    return client.search_runs(["1"], boards.PIPELINES, order_by=["attributes.start_time"])


def history(runs: list, metric: str) -> list[tuple[int, float]]:
    points = [(int(run.data.tags["retrain"]), run.data.metrics.get(metric)) for run in runs]
    return [(number, round(value, 6)) for number, value in points if value is not None]


def chart(page, title: str):
    """The card of a title; cards below the fold are not there until they are scrolled to."""
    area = page.get_by_test_id("experiment-view-compare-runs-chart-area")
    heading = page.get_by_role("heading", name=title, exact=True)
    card = page.get_by_test_id("experiment-view-compare-runs-card").filter(has=heading).first
    for _ in range(20):
        if card.count():
            break
        area.evaluate("e => e.scrollBy(0, 300)")
        page.wait_for_timeout(200)
    card.locator(".js-plotly-plot .main-svg").first.wait_for(timeout=60_000)
    return card


def lines(card) -> list[list[tuple[int, float]]]:
    traces = card.locator(".js-plotly-plot").first.evaluate("e => e.data.map(t => [t.mode, [...t.x], [...t.y]])")
    drawn = [zip(x, y, strict=True) for mode, x, y in traces if mode == "lines+markers"]
    return [[(int(step), round(value, 6)) for step, value in line] for line in drawn]


def test_every_line_over_the_retrains_has_mlflows_values_also_after_a_restart(project, browser_page, tmp_path):
    from playwright.sync_api import expect

    pipeline_runs = retrains(project)
    assert [run.data.tags["retrain"] for run in pipeline_runs] == [str(number) for number in range(1, RETRAINS + 1)]
    assert all(len(run.data.metrics) < 100 for run in pipeline_runs)
    present = boards.CURVES.metrics() - {"gpu_percent"} | frozenset().union(
        *(run.data.metrics for run in pipeline_runs)
    )
    port = free_port()
    for _ in range(2):
        with mlflow_server(tmp_path, f"sqlite:///{project}/mlflow.db", port):
            for board in boards.BOARDS.values():
                browser_page.goto("about:blank")
                browser_page.goto(f"http://127.0.0.1:{port}/{board.link('1')}")
                headings = browser_page.get_by_test_id("experiment-view-compare-runs-section-header")
                expect(headings).to_have_count(len(board.sections), timeout=60_000)
                for section, heading in zip(board.sections, headings.all(), strict=True):
                    full = sum(
                        not chart.metrics_shown() or bool(chart.metrics_shown() & present) for chart in section.charts
                    )
                    expect(heading).to_contain_text(f"({full})")
                expect(browser_page.get_by_text("Something went wrong")).to_have_count(0)
            browser_page.goto("about:blank")
            browser_page.goto(f"http://127.0.0.1:{port}/{boards.HEALTH.link('1')}")
            expect(browser_page.get_by_text(f"{RETRAINS} matching runs")).to_be_visible(timeout=60_000)
            for declared in (each for section in boards.HEALTH.sections for each in section.charts):
                wanted = [line for metric in declared.metrics if (line := history(pipeline_runs, metric))]
                if wanted:
                    drawn = lines(chart(browser_page, " vs ".join(declared.metrics)))
                    assert [line for line in wanted if line not in drawn] == []
            browser_page.get_by_test_id("saved-views-trigger").click()
            for board in boards.BOARDS.values():
                name = re.compile(rf"^{board.name} v1")
                expect(browser_page.get_by_role("menuitem", name=name).first).to_be_visible()


def test_the_notes_links_lead_to_the_boards(project, browser_page, tmp_path):
    from playwright.sync_api import expect

    with mlflow_server(tmp_path, f"sqlite:///{project}/mlflow.db") as server:
        browser_page.goto(f"{server.uri}/{boards.HEALTH.link('1')}")
        for board in boards.BOARDS.values():
            link = browser_page.get_by_role("link", name=board.name, exact=True).first
            expect(link).to_be_visible(timeout=60_000)
            with browser_page.context.expect_page() as opened:
                link.click()
            expect(opened.value.get_by_test_id("saved-views-trigger")).to_have_text(f"{board.name} v1", timeout=60_000)
            opened.value.close()
