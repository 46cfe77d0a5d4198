from pathlib import Path

from benchmarks.harness.results import Figure
from benchmarks.hinton_mnist.paper import PAPER, TEMPERATURES, WIDTHS, figures_of, plot, table


def test_the_table_tells_where_the_papers_figure_is():
    figures = figures_of([{"teacher_errors": value, "seconds": 1.0} for value in (60.0, 70.0, 80.0)])
    assert figures[0] == Figure("teacher_errors", 70.0, 45.16, 94.84, "errors")
    assert table(figures).endswith("jitter | 67 | 70 | 45 … 95 | within |")
    for ours, word in ((200.0, "below"), (100.0, "above")):
        (figure,) = figures_of([{"student_errors": ours}])
        assert f"| {word} |" in table([figure])
    assert "| 35.5 | 35.5 … 35.5 |" in table([Figure("only_7_8_error_rate", 35.48, 35.48, 35.48, "%")])


def test_the_plot_is_of_every_width_and_temperature(tmp_path: Path):
    names = [f"errors_{width}_units_t{temperature:g}" for width in WIDTHS for temperature in TEMPERATURES]
    path = plot([Figure(name, 100.0, 90.0, 110.0, "errors") for name in names], tmp_path / "plot.png")
    assert path.stat().st_size > 10_000


def test_the_figures_that_the_project_promises_are_compared():
    promised = {"teacher_errors", "student_errors", "distilled_errors", "distilled_without_3_errors"}
    promised |= {"distilled_without_3_bias_errors", "only_7_8_error_rate", "only_7_8_bias_error_rate"}
    assert promised <= PAPER.keys()
