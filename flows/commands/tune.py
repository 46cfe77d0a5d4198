"""``reflux tune``: the smallest student that passes, searched on the stored soft labels."""

import sys
import time

from reflux.components.advice.plan.choice import Choice, as_assignments
from reflux.components.advice.tune.result import (
    CHOICES,
    FIGURE,
    OBJECTIVES,
    RESULT,
    Result,
    Row,
    only_the_present,
    read,
)
from reflux.components.core.artifacts import ARTIFACTS, read_json
from reflux.components.core.errors import UserError, listed
from reflux.components.core.params.file import PARAMS, load_params, override_params
from reflux.components.core.runtime.stage import EXIT_INTERRUPTED
from reflux.flows.commands.run import Stop
from reflux.flows.local.environment import embed_mlflow, only_run, reflux_command
from reflux.flows.pipeline.search import search
from reflux.flows.report import tune as report
from reflux.flows.report.display import console

_MINUTES = 20.0
_LAST_S, _LAST_SHARE = 15.0, 0.05  # of the time: to write, draw and deliver what was found, and keep the boards


def tune(minutes: float | None, objective: str, workers: int, take: str | None) -> int:
    """Search students, print the front, and write the one to take to ``params.yaml``.

    Args:
        minutes: that it may take; with ``take``, None takes from what the last search has found.
        objective: names of figures, divided by commas.
        workers: processes that train at the same time.
        take: smallest, best, knee or the number of a trial.

    Returns:
        0, or 130 when it was stopped.

    Raises:
        UserError: Optuna is not installed; the params, soft labels or storage are wrong; no candidate can pass; or the
            time is too short.
    """
    began = time.time()
    objectives = _objectives(objective)
    params = load_params()  # what is wrong in it is said before anything starts
    if take is not None and take not in CHOICES and not take.isdecimal():
        raise UserError(f"--take {take} is none of {', '.join(CHOICES)} and no number of a trial.")
    embed_mlflow()
    with only_run():
        if take is None or minutes is not None:
            seconds = 60 * (_MINUTES if minutes is None else minutes)
            stop = Stop()
            try:
                ends = began + seconds - max(_LAST_S, _LAST_SHARE * seconds)
                stopped = not search(params.project.name, ends, objectives, workers)
            except BaseException:  # libraries wrap a KeyboardInterrupt that hits them into errors of their own
                if not stop.requested:
                    raise
                stopped = True
            if stopped:
                print("Stopped. What is finished is kept: the same command goes on from there.", file=sys.stderr)
                return EXIT_INTERRUPTED
        result = read()
        _show(result, take)
        if take:
            print(_taken(result, take))
    return 0


def _objectives(text: str) -> tuple[str, ...]:
    """The objectives by name.

    Raises:
        UserError: a name is unknown or comes twice, or the first is no figure of quality.
    """
    names = tuple(name.strip() for name in text.split(","))
    for name in names:
        if name not in OBJECTIVES:
            raise UserError(f"--objective {name or text} is unknown: name some of {', '.join(OBJECTIVES)}.")
    if len(set(names)) < len(names):
        raise UserError(f"--objective {text} names a figure twice.")
    quality = [name for name in OBJECTIVES if name not in ("size_kb", "latency_ms_p95", "params")]
    if names[0] not in quality:
        raise UserError(f"--objective {text} must begin with what is to be good: {', '.join(quality)}.")
    return names


def _show(result: Result, take: str | None) -> None:
    screen = console()
    screen.print()
    screen.print(report.table(result))
    screen.print()
    for sentence in report.sentences(result):
        screen.print(sentence, markup=False)
    screen.print(f"All of them in a picture: {FIGURE}", soft_wrap=True)
    if result.choices and not only_the_present(result) and not take:
        screen.print(f"Next: {reflux_command()} tune --take smallest", markup=False)


def _taken(result: Result, take: str) -> str:
    """Write a student to the params, and say so.

    Raises:
        UserError: there is none, or the soft labels are others by now.
    """
    if read_json(ARTIFACTS / "label" / "manifest.json").get("key") != result.store:
        raise UserError(f"{RESULT} is of other soft labels than there are now: search again with --minutes.")
    row = _row(result, take)
    if row.number == result.present:
        return f"{PARAMS} stays: trial {row.number} is the present student."
    why = report.reason(result, row)
    chosen = [Choice(param, value, "") for param, value in row.params.items()]
    comments = {"student.model": why}
    override_params(as_assignments(chosen), comments=comments)
    return f"{PARAMS} has trial {row.number} now, with the reason next to it.\nNext: {reflux_command()} run"


def _row(result: Result, take: str) -> Row:
    if take.isdecimal():
        row = result.row(int(take))
        if row is None:
            numbers = listed([each.number for each in result.front], 8)
            raise UserError(f"--take {take}: no such trial was trained to its end; the front has {numbers}.")
        return row
    chosen = result.chosen(take)
    if chosen is None:
        raise UserError(f"--take {take}: no student passes: {report.nearest(result)}")
    return chosen
