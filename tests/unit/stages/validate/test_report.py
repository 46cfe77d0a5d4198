import pytest

from reflux.components.stages.validate.findings import Finding
from reflux.components.stages.validate.report import front_page


def finding(success: bool | None, severity: str = "critical", **more: object) -> Finding:
    return Finding("known_labels", severity, "Labels are known.", "labels", success, 9, 0 if success else 2, **more)


@pytest.mark.parametrize(
    ("findings", "verdict"),
    [
        ([finding(True, rows=[])], "The data passes"),
        ([finding(False, "warning", rows=["a"])], "The data passes with 1 warning"),
        ([finding(False, rows=["a"]), finding(False, "warning", rows=[])], "The data fails: 1 critical, 1 warning"),
    ],
)
def test_the_verdict_is_title_and_heading(findings, verdict):
    page = front_page(findings, {}, "abc")
    assert f"<title>{verdict}</title>" in page
    assert f"<h1>{verdict}</h1>" in page


def test_names_of_files_are_text_and_rows_link_to_their_page():
    page = front_page([finding(False, rows=["<b>x</b>.png"])], {"labels": "validations/labels.html"}, "abc")
    assert "&lt;b&gt;x&lt;/b&gt;.png" in page
    assert "<b>x" not in page
    assert "and 1 more" in page
    assert '<a href="validations/labels.html">2 of 9</a>' in page


def test_what_was_not_checked_says_why():
    page = front_page([finding(None, rows=[], note="no earlier version")], {}, "abc")
    assert "Not checked: no earlier version." in page
    assert 'class="unknown">not checked' in page
