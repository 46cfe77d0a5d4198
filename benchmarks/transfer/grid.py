"""What the benchmarks of transfer share: stages in a folder, several seeds, their figures, tables and plots."""

import re
import shutil
import tempfile
from argparse import ArgumentParser, Namespace
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import chdir
from pathlib import Path

import torch

from benchmarks.harness.results import ROOT, Figure, Result, of_seeds, read, write
from reflux.components.core.data.shards import open_shard
from reflux.components.core.inference import validate
from reflux.components.core.params.file import override_params
from reflux.components.core.runtime.stage import Stage
from reflux.components.modalities.image.models.pixel_model import load
from reflux.components.stages.finetune.__main__ import main as finetune
from reflux.components.stages.ingest.__main__ import main as ingest
from reflux.components.stages.pretrain.__main__ import main as pretrain

Accuracies = Mapping[str, float]  # in percent, of each arm
Results = Mapping[int, Mapping[int, Accuracies]]  # by labels of a class and seed
Pairs = Sequence[tuple[str, str]]  # arms whose difference is reported
_STAGES = {"ingest": ingest, "pretrain": pretrain, "finetune": finetune}
_OF_SEED = re.compile(r"(\d+) labels? a class, (.*), seed (\d+)")
_COLORS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # Okabe and Ito (2008)


def run_stages(folder: Path, names: Sequence[str], settings: Sequence[str]) -> None:
    """Run stages of the pipeline in a folder, one after the other, with this checkout's params but for some."""
    folder.mkdir(parents=True, exist_ok=True)
    with chdir(folder):
        for name in ("dvc.yaml", "params.yaml"):
            shutil.copy(ROOT / name, name)
        params = override_params(list(settings))
        for name in names:
            Path("artifacts", name).mkdir(parents=True, exist_ok=True)
            _STAGES[name](Stage(name, params))


def fine_tuned(folder: Path, settings: Sequence[str], start: Path | None = None) -> float:
    """Fine-tune a network on the images that a folder's ``ingest`` has left.

    Args:
        folder: the stages' own.
        settings: of the params.
        start: the network's file; by default what the folder's ``pretrain`` has left.

    Returns:
        The teacher's accuracy of the test images, in percent.
    """
    if start:
        (folder / "artifacts/pretrain").mkdir(parents=True, exist_ok=True)
        shutil.copy(start, folder / "artifacts/pretrain/model.safetensors")
    run_stages(folder, ["finetune"], settings)
    teacher = load(folder / "artifacts/finetune/model.safetensors")
    test = open_shard(folder / "artifacts/ingest/shards/test")
    return 100 * validate(teacher, test, torch.device("cpu"))[1]


def counted(labels: int) -> str:
    """A number of labels in words."""
    return f"{labels} label{'s' if labels > 1 else ''}"


def named(labels: int, arm: str) -> str:
    """The name of a figure."""
    return f"{counted(labels)} a class, {arm}"


def figures_of(results: Results, pairs: Pairs) -> list[Figure]:
    """The mean of each arm over the seeds, that of differences within a seed, and the accuracy of each seed alone."""
    means, alone = [], []
    for labels, seeds in results.items():
        arms = dict.fromkeys(arm for accuracies in seeds.values() for arm in accuracies)
        for arm in arms:
            of_arm = {seed: accuracies[arm] for seed, accuracies in seeds.items() if arm in accuracies}
            means.append(of_seeds(named(labels, arm), list(of_arm.values()), "%"))
            alone += [of_seeds(f"{named(labels, arm)}, seed {seed}", [each], "%") for seed, each in of_arm.items()]
        for one, other in pairs:
            gains = [each[one] - each[other] for each in seeds.values() if one in each and other in each]
            means += [of_seeds(named(labels, f"{one} - {other}"), gains, "points")] if gains else []
    return means + alone


def results_of(figures: Sequence[Figure]) -> dict[int, dict[int, Accuracies]]:
    """The accuracies of each seed alone, by the number of labels of a class."""
    results: dict[int, dict[int, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
    for figure in figures:
        if match := _OF_SEED.fullmatch(figure.name):
            results[int(match[1])][int(match[3])][match[2]] = figure.value
    return {labels: dict(seeds) for labels, seeds in results.items()}


def table(result: Result, head: Sequence[str], rows: Mapping[str, Sequence[str]]) -> str:
    """Figures as Markdown, in percent or points; a cell whose figure was not measured is empty.

    Args:
        result: has the figures.
        head: of the columns but the first.
        rows: the names of their figures.
    """
    lines = [f"| | {' | '.join(head)} |", f"| --- |{' ---: |' * len(head)}"]
    for label, names in rows.items():
        cells = [_cell(result[name]) if name in result else "" for name in names]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(lines)


def by_labels(result: Result, numbers: Sequence[int], arms: Sequence[str]) -> str:
    """A table with a row for each arm and a column for each number of labels of a class."""
    head = [f"{counted(labels)} a class" for labels in numbers]
    return table(result, head, {arm: [named(labels, arm) for labels in numbers] for arm in arms})


def _cell(figure: Figure) -> str:
    value = f"{figure.value + 0:+.1f}" if figure.unit == "points" else f"{figure.value:.1f}"
    half = figure.high - figure.value
    return f"{value} ± {half:.1f}" if half else value


def plot(result: Result, panels: Mapping[str, Mapping[str, str]], numbers: Sequence[int], path: Path) -> None:
    """Draw accuracies against the labels of a class.

    Args:
        result: has the figures.
        panels: by title, the arm of each line by the line's label.
        numbers: of labels of a class.
        path: of the picture.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    _, axes = plt.subplots(
        1, len(panels), figsize=(1.5 + 3.5 * len(panels), 4.2), sharey=True, squeeze=False, layout="constrained"
    )
    for panel, (title, lines) in zip(axes[0], panels.items(), strict=True):
        for number, ((label, arm), color) in enumerate(zip(lines.items(), _COLORS, strict=False)):
            found = {count: result[named(count, arm)] for count in numbers if named(count, arm) in result}
            values, reach = [each.value for each in found.values()], [each.high - each.value for each in found.values()]
            apart = 1 + 0.03 * (number - len(lines) / 2)  # intervals that would hide each other
            at, look = [count * apart for count in found], {"marker": ".", "capsize": 2, "color": color}
            panel.errorbar(at, values, reach, elinewidth=0.8, label=label, **look)
        panel.set(title=title, xlabel="labels a class", xscale="log", xlim=(numbers[0] / 1.4, numbers[-1] * 1.4))
        panel.set_xticks(numbers, [str(count) for count in numbers])
        panel.minorticks_off()
        panel.spines[["top", "right"]].set_visible(False)
        panel.legend(fontsize=8, loc="lower right")
    axes[0][0].set_ylabel("accuracy of test images, %")
    plt.savefig(path, dpi=110)
    plt.close()


def measure(
    name: str,
    parser: ArgumentParser,
    seeds: Sequence[int],
    run: Callable[[Path, int, Mapping[int, Accuracies], Namespace], Iterator[tuple[int, Accuracies]]],
    pairs: Pairs,
    section: Callable[[Path], str],
) -> None:
    """The command of a benchmark: measure what its results file lacks, write that as it comes, and print the table.

    Args:
        name: of the results file.
        parser: of the command line.
        seeds: by default.
        run: in an empty folder, with a seed, what is known of it by labels of a class, and the options; yields all
            accuracies by labels of a class.
        pairs: of arms whose difference is reported.
        section: the table of the results in a folder.
    """
    parser.add_argument("seeds", type=int, nargs="*", default=seeds)
    parser.add_argument("--threads", type=int, default=0, help="of torch; 0 leaves it to torch")
    options = parser.parse_args()
    out = options.out.absolute()
    kept = read(name, out).figures if (out / f"{name}.json").is_file() else ()
    results: defaultdict[int, dict[int, Accuracies]] = defaultdict(dict, results_of(kept))
    for seed in options.seeds:
        known = {labels: seeds[seed] for labels, seeds in results.items() if seed in seeds}
        with tempfile.TemporaryDirectory() as scratch:
            for labels, accuracies in run(Path(scratch), seed, known, options):
                results[labels][seed] = accuracies
                write(name, figures_of({key: results[key] for key in sorted(results)}, pairs), out)
    print(f"\n{section(out)}\n\nWritten: {out / f'{name}.json'}")
