"""What stored soft labels bring a search, and how far what it finds can be believed: ``reflux tune``, measured.

    .venv/bin/python -m benchmarks.tune                          # after `reflux run`: its teacher and soft labels
    .venv/bin/python -m benchmarks.tune --run CHECKOUT --candidates 3 --minutes 10 20 60

The same candidates are trained whole, with the same steps, from the stored soft labels and from the teacher that is
asked at every step: the present student first, then what the search draws, without those whose files can't pass. The
two trials of a candidate follow each other, and take turns in being first, as other work on the machine may slow them
down; ``low`` and ``high`` are the least and the greatest candidate's. Then ``reflux tune`` searches until each of the
``--minutes`` is spent, always in the same study. What its fronts have is trained again with the search's own seed, as
``reflux run`` would, and its file is asked for validation and for test images: this benchmark opens the test split, the
search can't. It prints the tables and writes ``benchmarks/results/tune.json``: two idle cores, a quarter of an hour and
the minutes.
"""

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import chdir
from itertools import count, islice
from pathlib import Path
from statistics import mean
from typing import Any

import optuna

from benchmarks.harness.checkout import copy_checkout
from benchmarks.harness.results import ROOT, Figure, Result, argument_parser, of_rounds, read, write
from reflux.components.advice.tune.__main__ import check, prepared
from reflux.components.advice.tune.candidates import files_of
from reflux.components.advice.tune.result import HOME, OF_FILES, Row, failed
from reflux.components.advice.tune.result import Result as Found
from reflux.components.advice.tune.result import read as found
from reflux.components.advice.tune.space import applied, changes, held, present_values
from reflux.components.advice.tune.study import Search, sampler
from reflux.components.advice.tune.trial import Trial, figures_of
from reflux.components.core.artifacts import ARTIFACTS
from reflux.components.core.contract import FILES, kind_of
from reflux.components.core.data.shards import open_shard
from reflux.components.core.errors import UserError
from reflux.components.core.export.network import load, sample
from reflux.components.core.params.file import load_params
from reflux.components.core.precision import computing
from reflux.components.stages.compress.ship import writer
from reflux.components.stages.distill.trainer import Trainer
from reflux.components.stages.evaluate.metrics import measure

TEACHERS = {"cached": "stored soft labels", "live": "the teacher, asked at every step"}
RATIOS = ("wall time", "CPU time")
PLACES = ("present", "smallest", "best", "knee")
CALIBRATION = 512


def copied(run: Path, folder: Path) -> Path:
    """Copy this checkout, with the artifacts and params of the one whose last run made teacher and soft labels."""
    checkout = copy_checkout(folder)
    shutil.copytree(run / ARTIFACTS, checkout / ARTIFACTS)
    shutil.copy(run / "params.yaml", checkout)
    return checkout


def opened() -> Search:
    """What the trials of a search in the working folder share; its study stays empty.

    Raises:
        UserError: there are no soft labels, or they are of another teacher.
    """
    params = load_params()
    check(params)
    HOME.mkdir(parents=True, exist_ok=True)
    return prepared({"objectives": ("accuracy", "size_kb")}, params, "sqlite:///empty.db")


def candidates(search: Search) -> Iterator[dict[str, Any]]:
    """What each candidate changes in the params: the present student, then what is drawn and may pass the gates."""
    study = optuna.create_study(directions=search.study.directions)
    study.enqueue_trial(held(present_values(search.params), search.drawn))
    for number in count():
        study.sampler = sampler(search.params.seed, number)
        changed = changes(study.ask(dict(search.drawn)).params, search.params)
        params = applied(search.params, changed)
        student, kind = params.student, kind_of(params.compress.ships)
        runs = params.evaluate.latency_runs
        files = files_of(
            student.model, student.image_size, params.compress.ships, search.dataset, search.val.images, runs
        )
        figures = files.figures(kind)
        known = {name: bounds for name, bounds in search.gates.items() if name in OF_FILES}
        if not failed(figures, kind, known, len(search.val)):
            yield changed


def trained(search: Search, changed: Mapping[str, Any], teacher: str) -> tuple[float, float]:
    """Train and judge a candidate as a trial does; returns its wall and CPU seconds.

    Args:
        search: what trials share.
        changed: what the candidate changes in the params.
        teacher: a key of ``TEACHERS``.
    """
    params = applied(search.params, {**changed, "distill.teacher": teacher})
    run = Trial("trial", params, changed, None, "", lambda *_: None)
    run.environment |= computing(search.device, params.student.precision, params.run.compile)
    wall, cpu = time.monotonic(), time.process_time()
    trainer = Trainer(run, search.device)
    student = trainer.train_student(trainer.teacher if teacher == "live" else None).cpu().eval()
    figures_of(run, student, kind_of(params.compress.ships))
    spent = time.monotonic() - wall, time.process_time() - cpu
    run.end("FINISHED")
    return spent


def speeds(search: Search, number: int) -> list[Figure]:
    """Trials an hour of so many candidates, with the stored soft labels and with the live teacher, and their ratio."""
    rounds: dict[str, list[tuple[float, float]]] = {teacher: [] for teacher in TEACHERS}
    for place, changed in enumerate(islice(candidates(search), number)):
        for teacher in sorted(TEACHERS, reverse=bool(place % 2)):
            wall, cpu = trained(search, changed, teacher)
            rounds[teacher].append((wall, cpu))
            name = f"{changed['student.model']}, {changed['student.steps']:,} steps, {TEACHERS[teacher]}"
            print(f"{name}: {wall:.0f} s, {cpu:.0f} s of the processor", flush=True)
    figures = [
        of_rounds(f"trials an hour, {name}", [3600 / wall for wall, _ in rounds[teacher]], "trials")
        for teacher, name in TEACHERS.items()
    ]
    for place, what in enumerate(RATIOS):
        pairs = zip(rounds["live"], rounds["cached"], strict=True)
        figures.append(of_rounds(f"ratio, {what}", [live[place] / stored[place] for live, stored in pairs], "x"))
    return figures


def searched(minutes: Sequence[float]) -> dict[float, Found]:
    """Search in the working folder until each of the minutes is spent; returns what was found by then."""
    results, spent = {}, 0.0
    for total in sorted(minutes):
        command = [sys.executable, "-m", "reflux.flows.cli", "tune", "--minutes", f"{total - spent:g}"]
        done = subprocess.run(command, check=False)
        if done.returncode:
            sys.exit(f"Error: `reflux tune` ended with exit code {done.returncode}.")
        spent, results[total] = total, found()
    return results


def accuracies(search: Search, row: Row) -> dict[str, float]:
    """The accuracy in percent of a student's file on validation and on test images.

    It is trained with the seed that its search had, which ``reflux run`` has, too.
    """
    params = applied(search.params, row.params)
    run = Trial(f"trial {row.number}", params, row.params, None, "", lambda *_: None)
    run.environment |= computing(search.device, params.student.precision, params.run.compile)
    student = Trainer(run, search.device).train_student(None).cpu().eval()
    train_split = open_shard(run.read("ingest/shards/train"), params.run.workers)
    path = run.out(FILES[row.kind].name)
    writer(student, sample(train_split.images, CALIBRATION, student.spec))(row.kind, path)
    network = load(path)
    splits = {name: open_shard(ARTIFACTS / "ingest/shards" / name, params.run.workers) for name in ("val", "test")}
    judged = {
        name: 100 * measure(network.logits(split.images), split.labels)["accuracy"] for name, split in splits.items()
    }
    run.end("FINISHED")
    return judged


def fronts(search: Search, results: Mapping[float, Found]) -> Iterator[Figure]:
    """The figures of what was found after each of the minutes, with accuracies on test images."""
    known: dict[int, dict[str, float]] = {}
    for minutes, result in results.items():
        after, places = f"{minutes:g} min", result.choices
        if result.present is not None:
            places = {"present": result.present, **places}
        rows = [*result.front, *(row for number in places.values() if (row := result.row(number)))]
        for row in rows:
            if row.number not in known:
                known[row.number] = accuracies(search, row)
                said = ", ".join(f"{name} {value:.2f} %" for name, value in known[row.number].items())
                print(f"trial {row.number}: searched {100 * row.figures['accuracy']:.2f} %, again {said}", flush=True)
        yield spread(f"{after}, trained", [result.counts["trained"]], "students")
        yield spread(f"{after}, front", [len(result.front)], "students")
        for place, number in places.items():
            row = next(row for row in rows if row.number == number)
            yield spread(f"{after}, {place}, KB", [row.expected["size_kb"]], "KB")
            yield spread(f"{after}, {place}, other seeds", [100 * row.expected["accuracy"]], "%")
            yield spread(f"{after}, {place}, test", [known[number]["test"]], "%")
        over = [100 * row.figures["accuracy"] - known[row.number]["test"] for row in result.front]
        yield spread(f"{after}, searched - test", over, "points")


def spread(name: str, values: Sequence[float], unit: str) -> Figure:
    """The mean of some values, with the least and the greatest."""
    return Figure(name, round(mean(values), 2), round(min(values), 2), round(max(values), 2), unit)


def section(folder: Path) -> str:
    """The page's tables from the results in a folder, as Markdown."""
    result = read("tune", folder)
    lines = ["| each trial learns from | trials an hour |", "| --- | ---: |"]
    lines += [f"| {name} | {_range(result[f'trials an hour, {name}'], 0)} |" for name in TEACHERS.values()]
    lines += [f"| ratio, {what} | {_range(result[f'ratio, {what}'], 1)} |" for what in RATIOS]
    heads = ["after", "trained", "on the front", *(f"{place}: KB, other seeds, test" for place in PLACES)]
    lines += ["", f"| {' | '.join([*heads, 'searched less test'])} |", f"| ---: |{' ---: |' * len(heads)}"]
    for after in [name.removesuffix(", trained") for each in result.figures if (name := each.name).endswith("trained")]:
        cells = [after, *(f"{result[f'{after}, {what}'].value:.0f}" for what in ("trained", "front"))]
        cells += [_student(result, f"{after}, {place}") for place in PLACES]
        lines.append(f"| {' | '.join(cells)} | {_range(result[f'{after}, searched - test'], 1)} |")
    return "\n".join([*lines, "", str(result)])


def _range(figure: Figure, digits: int) -> str:
    value, low, high = (f"{number:.{digits}f}" for number in (figure.value, figure.low, figure.high))
    return f"{value} ({low} … {high})"


def _student(result: Result, name: str) -> str:
    if f"{name}, KB" not in result:
        return ""
    size_kb, seeds, test = (result[f"{name}, {what}"].value for what in ("KB", "other seeds", "test"))
    return f"{size_kb:.1f}, {seeds:.1f} %, {test:.1f} %"


def main() -> None:
    """Measure, print the tables in Markdown, and write the figures."""
    parser = argument_parser(__doc__)
    parser.add_argument("--run", type=Path, default=ROOT, help="the checkout whose last `reflux run` made the teacher")
    parser.add_argument("--candidates", type=int, default=3, help="that are trained with either teacher")
    parser.add_argument("--minutes", type=float, nargs="+", default=[10], help="after which the front is looked at")
    options = parser.parse_args()
    out, run = options.out.absolute(), options.run.absolute()
    with tempfile.TemporaryDirectory() as scratch, chdir(copied(run, Path(scratch))):
        try:
            search = opened()
        except UserError as error:
            parser.error(str(error))
        figures = speeds(search, options.candidates)
        figures += fronts(search, searched(options.minutes))
    written = write("tune", figures, out)
    print(f"\n{section(out)}\n\nWritten: {written}")


if __name__ == "__main__":
    main()
