import json

import pytest
from pydantic import ValidationError

from reflux.components.observe.boards.view import Board, Images, Line, Parallel, Scatter, Section, TooLarge


def board(*charts, **changes) -> Board:
    sections = (Section(name="How it went", charts=charts or (Line(metrics=("a", "b")),)),)
    return Board(
        **({"slug": "health", "name": "Health", "shows": "x", "runs": "tags.k = 'v'"} | changes), sections=sections
    )


def state(view: str) -> dict:
    return json.loads(json.loads(view)["state"])


@pytest.mark.parametrize(
    ("make", "about"),
    [
        (lambda: Scatter(x="", y="b"), "at least 1 character"),  # blanks MLflow's page
        (lambda: Scatter(x="a"), "Field required"),
        (lambda: Line(metrics=()), "at least 1 item"),
        (lambda: Parallel(params=("p",), metrics=()), "at least 1 item"),
        (lambda: Section(name="s", charts=()), "at least 1 item"),
        (lambda: Section(name="", charts=(Line(metrics=("a",)),)), "at least 1 character"),
        (lambda: Board(slug="b", name="B", shows="x", runs="r", sections=()), "at least 1 item"),
        (lambda: board(slug="Not a slug"), "should match pattern"),
        (lambda: board(title="B"), "Extra inputs"),
    ],
)
def test_what_breaks_the_page_cant_be_written(make, about):
    with pytest.raises(ValidationError, match=about):
        make()


def test_a_view_holds_every_chart_in_its_section_and_hides_the_rest():
    view = board(Line(metrics=("a", "b")), Images(keys=("i",)), by="k").view(3, ["a", "b", "z"], ["i", "j"], 0, 7)
    assert json.loads(view)["name"] == "Health v3"
    page = state(view)
    assert [section["name"] for section in page["compareRunSections"]] == ["How it went"]
    line, images, second, hidden, picture = page["compareRunCharts"]
    assert (line["type"], line["selectedMetricKeys"], line["metricSectionId"]) == ("LINE", ["a", "b"], "s0")
    assert (images["type"], images["imageKeys"]) == ("IMAGE", ["i"])
    assert (second["metricKey"], second["deleted"]) == ("b", True)  # drawn with the first
    assert (hidden["metricKey"], hidden["deleted"]) == ("z", True)
    assert (picture["imageKeys"], picture["deleted"]) == (["j"], True)
    assert page["searchFilter"] == "tags.k = 'v'"
    assert page["groupBy"]["groupByKeys"] == [{"mode": "tag", "groupByData": "k"}]
    assert len({chart["uuid"] for chart in page["compareRunCharts"]}) == 5


def test_a_board_of_the_newest_retrains_begins_with_the_first_of_them():
    page = state(board(newest=3).view(1, [], [], 17, 0))
    assert page["searchFilter"] == "tags.k = 'v' AND attributes.start_time >= 17"


def test_a_changed_declaration_has_another_digest_and_what_runs_have_changes_none():
    one = board(Line(metrics=("a",)))
    assert one.digest() == board(Line(metrics=("a",))).digest()
    assert one.digest() != board(Line(metrics=("b",))).digest()
    assert one.view(1, ["a"], [], 0, 0) != one.view(1, ["a", "z"], [], 0, 0)


def test_a_board_that_no_tag_can_hold_is_refused():
    with pytest.raises(TooLarge, match=r"Health takes .* characters, and MLflow keeps 20,000"):
        board().view(1, [f"a-rather-long-name-of-a-metric-{n}" for n in range(200)], [], 0, 0)
