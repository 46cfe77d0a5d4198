"""The figures of all image sets, the bars that they are held against, and the page's table."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, median

from benchmarks.datasets.runs import Outcome, Run, read_runs
from benchmarks.datasets.sets import SETS
from benchmarks.harness import since
from benchmarks.harness.results import Figure, Result, of_rounds, of_seeds, read

MODELS = ("teacher", "student", "control")
_TITLES = ("set", "images", "labeled + unlabeled, test", "seeds", *MODELS, "gain", "KB", "minutes planned", "taken")
_WORDS = ("set", "images")  # the columns that have no numbers
_NONE = "Not measured yet."
_FEW_LABELS = 9  # unlabeled images for each labeled one
MEAN_GAIN, PLAN_OFF, NOT_ENDED = "mean gain", "plan off", "runs that ended in neither a champion nor a sentence"


def figures_of(runs: Sequence[Run]) -> list[Figure]:
    """The figures of each set over its runs, and those over all sets."""
    figures, gains = [], []
    for name in dict.fromkeys(run.name for run in runs):
        own = [run for run in runs if run.name == name]
        figures += [of_rounds(f"{name}/{part}", [count], "images") for part, count in own[-1].counts.items()]
        figures.append(of_rounds(f"{name}/seeds", [len(own)], "runs"))
        finished = [run.outcome for run in own if run.outcome.accuracy]
        if finished:
            for model in MODELS:
                values = [outcome.accuracy[model] for outcome in finished]
                figures.append(of_seeds(f"{name}/{model}", values, "%"))
            figures.append(_gain(f"{name}/gain", finished))
            gains.append(figures[-1].value)
        for figure, unit in (("size_kb", "KB"), ("planned_min", "min"), ("taken_min", "min")):
            known = [value for run in own if (value := getattr(run.outcome, figure)) is not None]
            figures += [of_rounds(f"{name}/{figure}", known, unit)] if known else []
    every = [run.outcome for run in runs]
    figures += [of_seeds(MEAN_GAIN, gains, "points")] if gains else []
    off = [
        100 * abs(outcome.taken_min / outcome.planned_min - 1)
        for outcome in every
        if outcome.accuracy and outcome.planned_min and outcome.taken_min
    ]
    figures += [of_rounds(PLAN_OFF, off, "%")] if off else []
    return [*figures, of_rounds(NOT_ENDED, [sum(not outcome.ended_well for outcome in every)], "runs")]


def _gain(name: str, finished: Sequence[Outcome]) -> Figure:
    """The gain over the seeds with its interval; of a single run, with the interval that the run gives."""
    gains = [outcome.accuracy["student"] - outcome.accuracy["control"] for outcome in finished]
    figure = of_seeds(name, gains, "points")
    if len(finished) > 1:
        return figure
    low, high = (round(end, 2) for end in finished[0].gain_ci95)
    return replace(figure, low=low, high=high)


def notes_of(runs: Sequence[Run]) -> dict[str, str]:
    """For each set whose runs did not all end in a champion, the sentences that they ended with."""
    sentences: dict[str, list[str]] = {}
    for run in runs:
        if run.outcome.sentence:
            sentences.setdefault(run.name, []).append(run.outcome.sentence)
    return {name: " ".join(dict.fromkeys(each)) for name, each in sentences.items()}


def bars(result: Result) -> dict[str, bool]:
    """What the results are held against, and whether they reach it."""
    gains = {figure.name: figure for figure in result.figures if figure.name.endswith("/gain")}
    below = [name.removesuffix("/gain") for name, figure in gains.items() if figure.high < 0]
    named = f" ({', '.join(below)})" if below else ""
    held = {}
    if gains:
        held[f"on no set is the upper end of the gain's interval below 0{named}"] = not below
        mean = result[MEAN_GAIN].value
        held[f"the mean gain over the sets ({mean:+.2f} points) is at least 2"] = mean >= 2
    held["every run ends in a champion or in one sentence"] = result[NOT_ENDED].value == 0
    if PLAN_OFF in result:
        off = result[PLAN_OFF].value
        held[f"the median run took within 25 % of the planned minutes ({off:.0f} % off)"] = off <= 25
    return held


def noticed_loss(half: float, seeds: int) -> float:
    """The true loss that an interval over so many seeds would notice in four of five tries.

    It is noticed if the upper end is below 0, as Student's t with a true mean of that loss says.

    Args:
        half: of the interval, by which the seeds' spread is known.
        seeds: two at least.
    """
    from scipy import special, stats

    bound = stats.t.ppf(0.975, seeds - 1)
    return float(special.nctdtrinc(seeds - 1, 0.2, bound) * half / bound)


def power(result: Result) -> str:
    """What the bar on each set's interval can notice, in words; empty if no set has several seeds."""
    losses = sorted(
        (noticed_loss(figure.high - figure.value, int(result[f"{name}/seeds"].value)), name)
        for figure in result.figures
        if (name := figure.name.removesuffix("/gain")) != figure.name and result[f"{name}/seeds"].value > 1
    )
    if not losses:
        return ""
    (least, best), (most, worst) = losses[0], losses[-1]
    middle = median(loss for loss, _ in losses)
    return (
        "with so few seeds the bar on the intervals can hardly fail: in four of five tries it notices a true loss of "
        f"{middle:.1f} points on half of the sets, {least:.1f} on {best}, {most:.1f} on {worst}"
    )


def by_labels(result: Result) -> list[str]:
    """The mean gain over the sets with few labels, and over the others, in words."""
    few: list[float] = []
    others: list[float] = []
    for figure in result.figures:
        name, _, kind = figure.name.rpartition("/")
        if kind == "gain":
            is_few = result[f"{name}/unlabeled"].value >= _FEW_LABELS * result[f"{name}/labeled"].value
            (few if is_few else others).append(figure.value)
    total = len(few) + len(others)
    kinds = {f"at least {_FEW_LABELS} unlabeled images for each labeled one": few, "fewer": others}
    return [
        f"the mean gain with {kind} is {fmean(gains):+.2f} points ({len(gains)} of {total} sets)"
        for kind, gains in kinds.items()
        if gains
    ]


def overtime(runs: Sequence[Run]) -> str:
    """How many runs took longer than they were allowed, in words; empty if none ended in a model."""
    minutes = [(run.outcome.taken_min, run.minutes) for run in runs if run.outcome.accuracy and run.outcome.taken_min]
    if not minutes:
        return ""
    late = sum(taken > allowed for taken, allowed in minutes)
    return f"{late} of {len(minutes)} runs took longer than they were allowed, the longest {max(minutes)[0]:.1f} min"


def table(result: Result, titles: Sequence[str] = _TITLES) -> str:
    """A row for each set, with the columns of these titles, as Markdown."""
    rows = [_row(result, name) for name in SETS if f"{name}/labeled" in result]
    sides = ["---" if title in _WORDS else "---:" for title in titles]
    cells = [list(titles), sides, *([row[title] for title in titles] for row in rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


def _row(result: Result, name: str) -> dict[str, str]:
    """A set's cells, by title."""

    def text(figure: str, digits: int) -> str:
        known = f"{name}/{figure}" in result
        return f"{result[f'{name}/{figure}'].value:,.{digits}f}" if known else ""

    images = SETS[name]
    low, high = images.pixels
    size = f"{low:,}" if low == high else f"{low:,} to {high:,}"
    unlabeled = text("unlabeled", 0)
    test = text("test", 0) if result[f"{name}/test"].value else "drawn"
    gain = ""
    if f"{name}/gain" in result:
        figure = result[f"{name}/gain"]
        gain = f"{figure.value:+.2f} ({figure.low:.2f} to {figure.high:.2f})"
    cells = [
        name,
        f"{images.kind}, {'color' if images.color else 'gray'}, {size} px",
        f"{text('labeled', 0)}{f' + {unlabeled}' if unlabeled != '0' else ''}, {test}",
        text("seeds", 0),
        *(text(model, 2) for model in MODELS),
        gain,
        *(text(figure, digits) for figure, digits in (("size_kb", 0), ("planned_min", 1), ("taken_min", 1))),
    ]
    return dict(zip(_TITLES, cells, strict=True))


def _measured(folder: Path) -> Result | None:
    return read("datasets", folder) if (folder / "datasets.json").is_file() else None


def section(folder: Path) -> str:
    """The page's table from the results in a folder, why runs have no champion, the bars, and figures of all runs."""
    if not (result := _measured(folder)):
        return _NONE
    sentences = [f"- `{name}`: {sentence}" for name, sentence in result.notes.items()]
    verdicts = [f"- {'holds' if holds else '**missed**'}: {bar}" for bar, holds in bars(result).items()]
    measured = read_runs(folder)
    commits = Counter(run.commit for run in measured)
    facts = [f"- {fact}" for fact in (power(result), *by_labels(result), overtime(measured)) if fact]
    runs = ", ".join(f"{count} at {commit}" for commit, count in commits.items())
    lists = ["\n".join(each) for each in (sentences, verdicts, facts) if each]
    return "\n\n".join([table(result), *lists, f"`datasets.json`: {result.machine}. Runs: {runs}.{_since(measured)}"])


def in_short(folder: Path) -> str:
    """The README's table: the page says what the images are."""
    if not (result := _measured(folder)):
        return _NONE
    runs = read_runs(folder)
    short = table(result, [title for title in _TITLES if title != "images"])
    at = f"`datasets.json`: {len(runs)} runs at {len({run.commit for run in runs})} commits.{_since(runs)}"
    return f"{short}\n\n{at}"


def _since(runs: Sequence[Run]) -> str:
    return since.sentence("datasets", {run.commit for run in runs})
