"""A check of the monitor as a table, as Markdown and as a picture."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from reflux.components.core.params.sections import Monitor
from reflux.components.core.shift import CLASS_BALANCE, CONFIDENCE, PREDICTED, Counts, Sample, ShiftTest, labeled_counts

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BINS = 30


@dataclass(frozen=True)
class Check:
    """One comparison of the data with the champion's.

    Attributes:
        new: images that the champion's data did not have.
        votes: whether each of the last checks found a difference, this one first.
        action: what was done about it, a sentence.
    """

    champion: int
    data_md5: str
    new: int
    tests: list[ShiftTest]
    votes: list[bool]
    action: str


def experiment(project: str) -> str:
    """The name of a project's checks in MLflow."""
    return f"{project}/monitor"


def headline(check: Check, m: int) -> str:
    """The check in one or two sentences."""
    differing = [test.name for test in check.tests if test.differs]
    sentence = f"{check.new:,} images are new since champion version {check.champion}"
    if not check.tests:
        sentence += ", too few to compare"
    elif differing:
        sentence += f"; they differ in {', '.join(differing)}"
    else:
        sentence += ", like those that it was made of"
    votes = f"{sum(check.votes)} of the last {min(m, len(check.votes))} checks found a difference"
    return f"{sentence}. {votes}. {check.action}"


def rows(tests: list[ShiftTest]) -> list[dict[str, Any]]:
    """The tests as a table, a row each."""
    return [
        {
            "compared": test.name,
            "old": test.old,
            "new": test.new,
            "distance": round(test.distance, 4),
            "p": f"{test.p_value:.2g}",
            "p, Holm": f"{test.adjusted:.2g}",
            "differs": "yes" if test.differs else "no",
        }
        for test in tests
    ]


def markdown(check: Check, settings: Monitor) -> str:
    """The whole report as Markdown."""
    lines = ["# Is the data still the champion's?", "", headline(check, settings.m), ""]
    table = rows(check.tests)
    if table:
        lines += [f"| {' | '.join(table[0])} |", f"| --- |{' ---: |' * (len(table[0]) - 1)}"]
        lines += [f"| {' | '.join(map(str, row.values()))} |" for row in table]
    lines += [
        "",
        f"Class balance and predicted classes: chi-square; the rest: two-sample Kolmogorov-Smirnov. Together, by Holm, "
        f"they call equal data different in {100 * settings.alpha:g} % of checks at most. Data {check.data_md5}.",
    ]
    return "\n".join(lines)


def metrics(check: Check) -> dict[str, float]:
    """The check's figures for MLflow."""
    figures = {"new_images": float(check.new), "differs": float(check.votes[0])}
    for test in check.tests:
        name = test.name.replace(" ", "_")
        figures |= {f"p/{name}": test.adjusted, f"distance/{name}": test.distance}
    return figures


def figure(old: Sample, new: Sample, tests: list[ShiftTest]) -> "Figure":
    """A picture with a panel for each test: the champion's data in gray, what is new in color."""
    from matplotlib.figure import Figure

    picture = Figure(figsize=(3.2 * max(1, len(tests)), 2.8), layout="constrained")
    panels = picture.subplots(1, max(1, len(tests)), squeeze=False)[0]
    for panel, test in zip(panels, tests, strict=False):
        color = "tab:red" if test.differs else "tab:blue"
        if test.name == CLASS_BALANCE:
            _classes(panel, *labeled_counts(old, new), color)
        elif test.name == PREDICTED:
            _classes(panel, old.classes, (old.predicted, new.predicted), color)
        else:
            a, b = (s.confidence if test.name == CONFIDENCE else s.statistics[test.name] for s in (old, new))
            edges = np.histogram_bin_edges(np.concatenate([a, b]), _BINS)
            panel.hist(a, edges, density=True, color="0.75", label="champion's")
            panel.hist(b, edges, density=True, histtype="step", color=color, linewidth=1.5, label="new")
        panel.set_title(f"{test.name}: p = {test.adjusted:.2g}", fontsize=9)
        panel.tick_params(labelsize=7)
    if tests:
        panels[0].legend(fontsize=7)
    return picture


def _classes(panel: "Axes", names: Sequence[str], counts: tuple[Counts, Counts], color: str) -> None:
    looks = ((-0.2, "0.75", "champion's"), (0.2, color, "new"))
    for each, (shift, shade, label) in zip(counts, looks, strict=True):
        panel.bar(np.arange(len(names)) + shift, each / max(1, each.sum()), 0.4, color=shade, label=label)
    panel.set_xticks(range(len(names)), names, rotation=90)
