"""A check of the monitor, as a table, as Markdown and as a picture."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from components.core.params.sections import Monitor
from components.monitor.shift import CLASS_BALANCE, CONFIDENCE, PREDICTED, Counts, Sample, Test, labelled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BINS = 30


@dataclass(frozen=True)
class Check:
    """One look at the data.

    Attributes:
        champion: the version whose data is the reference.
        data_md5: DVC's hash of the data now.
        new: images that the champion's data did not have.
        tests: what was compared.
        votes: what the last checks said, this one first.
        action: what was done about it, in one sentence.
    """

    champion: int
    data_md5: str
    new: int
    tests: list[Test]
    votes: list[bool]
    action: str


def headline(check: Check, m: int) -> str:
    """The check in one or two sentences."""
    differing = [test.name for test in check.tests if test.differs]
    said = f"{check.new:,} images are new since champion version {check.champion}"
    if not check.tests:
        said += ", too few to compare"
    elif differing:
        said += f"; they differ in {', '.join(differing)}"
    else:
        said += ", like those that it was made of"
    return f"{said}. {sum(check.votes)} of the last {min(m, len(check.votes))} checks say so. {check.action}"


def rows(tests: list[Test]) -> list[dict[str, Any]]:
    """A row a test."""
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
    """The whole report."""
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
    found = {"new_images": float(check.new), "differs": float(check.votes[0])}
    for test in check.tests:
        name = test.name.replace(" ", "_")
        found |= {f"p/{name}": test.adjusted, f"distance/{name}": test.distance}
    return found


def figure(old: Sample, new: Sample, tests: list[Test]) -> "Figure":
    """A panel a test: the champion's data in grey, what is new in colour."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(3.2 * max(1, len(tests)), 2.8), layout="constrained")
    panels = drawn.subplots(1, max(1, len(tests)), squeeze=False)[0]
    for panel, test in zip(panels, tests, strict=False):
        colour = "tab:red" if test.differs else "tab:blue"
        if test.name == CLASS_BALANCE:
            _classes(panel, *labelled(old, new), colour)
        elif test.name == PREDICTED:
            _classes(panel, old.classes, (old.predicted, new.predicted), colour)
        else:
            a, b = (s.confidence if test.name == CONFIDENCE else s.statistics[test.name] for s in (old, new))
            edges = np.histogram_bin_edges(np.concatenate([a, b]), _BINS)
            panel.hist(a, edges, density=True, color="0.75", label="champion's")
            panel.hist(b, edges, density=True, histtype="step", color=colour, linewidth=1.5, label="new")
        panel.set_title(f"{test.name}: p = {test.adjusted:.2g}", fontsize=9)
        panel.tick_params(labelsize=7)
    if tests:
        panels[0].legend(fontsize=7)
    return drawn


def _classes(panel: "Axes", names: Sequence[str], counts: tuple[Counts, Counts], colour: str) -> None:
    looks = ((-0.2, "0.75", "champion's"), (0.2, colour, "new"))
    for each, (shift, shade, label) in zip(counts, looks, strict=True):
        panel.bar(np.arange(len(names)) + shift, each / max(1, each.sum()), 0.4, color=shade, label=label)
    panel.set_xticks(range(len(names)), names, rotation=90)
