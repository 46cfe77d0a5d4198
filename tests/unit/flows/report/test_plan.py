import pytest
from rich.console import Console

from reflux.components.advice.plan.choice import Choice
from reflux.components.advice.plan.profile import Profile
from reflux.flows.report.plan import plan_table

PROFILE = Profile(("a", "b"), dict.fromkeys(("train", "val", "test"), (5, 5)), 90, True, (28, 28, 28), False)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"name": "kd", "temperature": 1.0}, "method name kd, temperature 1.0  "),
        ([{"name": "kd", "temperature": 1.0}, "dist"], "method name kd, temperature 1.0 + dist  "),
    ],
)
def test_a_choice_is_shown_without_brackets_and_with_its_reason(value: object, words: str):
    console = Console(width=200, record=True)
    console.print(plan_table(PROFILE, [Choice("distill.method", value, "a reason")], {"distill": 60.0}, 10))
    (line,) = [line for line in console.export_text().splitlines() if line.startswith("method")]
    assert words in line
    assert line.rstrip().endswith("a reason")
