from benchmarks.harness.results import Figure
from benchmarks.methods.report import table
from reflux.components.core.params.distill import METHODS


def test_the_table_is_sorted_by_the_first_student():
    figures = [
        Figure(f"{student}/{method}/accuracy", 80.0 + place, 79.0, 81.0, "%")
        for student in ("resnet8_slim", "resnet8")
        for place, method in enumerate(("control", *METHODS))
    ]
    rows = [line.split("|")[1].strip() for line in table(figures).splitlines()[2:]]
    assert rows == [*reversed(METHODS), "control"]
