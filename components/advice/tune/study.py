"""The search: Optuna draws candidates, those that can't pass are not trained, and what is clearly worse is stopped."""

import math
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from types import FrameType
from typing import Any

import numpy as np
import optuna
import torch
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from reflux.components.advice.tune.candidates import Files, files_of
from reflux.components.advice.tune.findings import (
    FEW,
    completed,
    importance,
    in_words,
    is_refused,
    is_repeat,
    nearest,
    passes_now,
    repeats_begun,
    rows_of,
    seconds_of,
)
from reflux.components.advice.tune.front import goes_on
from reflux.components.advice.tune.result import OF_FILES, REPEATED, Result, Row, failed, losses_of, to_repeat
from reflux.components.advice.tune.space import applied, changes, held, narrower, present_values, suggest
from reflux.components.advice.tune.storage import (
    CHANGES,
    CONTINUES,
    FIGURES,
    FILES,
    PRESENT,
    REPEATS,
    RUNG,
    SEED,
    UNFINISHED,
    WHY,
    set_aside,
    take_up,
)
from reflux.components.advice.tune.trial import Trial, figures_of, train
from reflux.components.core.contract import kind_of
from reflux.components.core.data.shards import Dataset, Shard
from reflux.components.core.errors import UserError
from reflux.components.core.params.sections import Params
from reflux.components.core.runtime.journal import Status
from reflux.components.registry.policy.gates import Bounds, format_value

RUNGS = (0.25, 0.5)  # shares of the steps after which a trial may be stopped
_REFUSED = 60  # candidates in a row that can't pass: nothing here can
_INHERITED = 5  # of the front of an earlier study
_SEED_STEP = 1000
_AGAIN_S = 0.05  # after which a time limit looks again whether a write has ended
_LONGEST_S = 10.0**7  # a timer takes no infinity
_REPEATING = 0.4  # of the time at most
_BETWEEN_S = 1.0  # two trials, at most: the sampler, the database and the findings


class OutOfTime(KeyboardInterrupt):
    """A trial that would end after the time that the study has; the next call goes on with it.

    It is no ``Exception``, as it may come anywhere, and libraries turn those into errors of their own.
    """


@dataclass
class Search:
    """What the trials of a call share.

    Attributes:
        study, storage: Optuna's.
        params: of the project.
        dataset: its classes and image format.
        val: the validation split.
        gates: of the registry's policy.
        objectives: names among ``OBJECTIVES``.
        drawn: the distribution of each knob.
        device: that trains.
        parent: the journal of the study's run.
        store: the key of the soft labels.
        say: prints a line for people.
        end: when the present trial must have ended, by :func:`time.monotonic`.
        foreseen: the seconds of a trial that there was no time for.
        said: what happened in the last trial.
    """

    study: optuna.Study
    storage: optuna.storages.BaseStorage
    params: Params
    dataset: Dataset
    val: Shard
    gates: Bounds
    objectives: Sequence[str]
    drawn: Mapping[str, BaseDistribution]
    device: torch.device
    parent: str
    store: str
    say: Callable[[str], None]
    end: float = math.inf
    foreseen: float | None = None
    said: str = ""

    def run(self) -> None:
        """Run a trial: one that waits, or else a new one."""
        self.study.sampler = sampler(self.params.seed, len(self.study.get_trials(deepcopy=False)))
        self.said = ""
        with suppress(OutOfTime):
            self.study.optimize(self._objective, n_trials=1)
        if self.said:  # what is said is in the storage by now
            self.say(self.said)

    def until(self, deadline: float) -> None:
        """Search, and train what would be chosen again with other seeds, until nothing more fits into the time.

        Args:
            deadline: by :func:`time.monotonic`.

        Raises:
            UserError: no candidate of the space can pass the gates.
        """
        share = _REPEATING * (deadline - time.monotonic())
        while True:
            now, again = time.monotonic(), to_repeat(self.result(), repeats_begun(self.study))
            reserved = min(share, sum((row.seconds + _BETWEEN_S) * (REPEATED - len(row.repeats)) for row in again))
            if now + (self._shortest() or 0) < deadline - reserved:
                self.end = deadline - reserved
                self.run()
                self._refuse_a_hopeless_space()
            elif again and now + again[0].seconds < deadline:
                self.end = deadline
                repeat(self, again[0])
            else:
                return

    def result(self) -> Result:
        """What the study has found so far."""
        trials, ended = self.study.get_trials(deepcopy=False), completed(self.study)
        stopped = [trial for trial in trials if trial.state is TrialState.PRUNED]
        counts = {
            "trained": sum(not is_repeat(trial) for trial in ended),
            "stopped": sum(not is_refused(trial) for trial in stopped),
            "refused": sum(is_refused(trial) for trial in stopped),
            "repeated": sum(is_repeat(trial) for trial in ended),
        }
        return Result(
            rows=tuple(rows_of(self.study)),
            objectives=tuple(self.objectives),
            images=len(self.val),
            gates=self.gates,
            present=next((trial.number for trial in ended if trial.user_attrs.get(PRESENT)), None),
            counts=counts,
            whys=dict(Counter(trial.user_attrs.get(WHY, "it failed") for trial in stopped).most_common()),
            importance=importance(self.study),
            store=self.store,
            study=self.study.study_name,
            seconds=sum(map(seconds_of, trials)),
        )

    def _refuse_a_hopeless_space(self) -> None:
        last = self.study.get_trials(deepcopy=False)[-_REFUSED:]
        if len(last) == _REFUSED and all(is_refused(trial) for trial in last):
            raise UserError(nearest(last, self.gates))

    def _shortest(self) -> float | None:
        return min(map(seconds_of, completed(self.study)), default=self.foreseen)

    def _objective(self, trial: optuna.Trial) -> tuple[float, ...]:
        changed = changes(suggest(trial, self.drawn), self.params)
        trial.set_user_attr(CHANGES, changed)
        seed = trial.user_attrs.get(SEED)
        params = applied(self.params, changed)
        kind = kind_of(params.compress.ships)
        name = f"{trial.number}: {params.student.model} at {params.student.image_size} px, {params.compress.ships}"
        watch = _Watch(self, trial, params.student.steps)
        run = Trial(f"trial {name}", params, changed, seed, self.parent, watch)
        status: Status = "FAILED"
        try:
            self._check_files(trial, params, kind)
            watch.began = time.monotonic()
            with time_limit(self.end, lambda: watch.writes):
                student = train(run, seed, self.device)
                figures = trial.user_attrs[FILES] | figures_of(run, student, kind)
            trial.set_user_attr(FIGURES, figures)
            _constrain(trial, figures, kind, self.gates, len(self.val))
            run.journal.metrics({f"tune/{figure}": value for figure, value in figures.items()})
            status = "FINISHED"
            self.said = f"trial {name}: {in_words(figures)}"
            return tuple(figures[objective] for objective in self.objectives)
        except optuna.TrialPruned as stop:
            status = "FINISHED"
            self.said = f"trial {name}: stopped, {stop}"
            if trial.user_attrs.get(RUNG):
                run.journal.tags({"stopped": str(stop)})
            raise
        except UserError as error:
            if trial.user_attrs.get(PRESENT) or trial.number == 0:  # it is no fault of the candidate
                trial.set_user_attr(UNFINISHED, True)
                raise
            raise _stopped(trial, str(error)) from None
        except KeyboardInterrupt:
            if watch.step:
                self.foreseen = (time.monotonic() - watch.began) * params.student.steps / watch.step
            trial.set_user_attr(UNFINISHED, True)
            status = "KILLED"
            raise
        finally:
            run.end(status)

    def _check_files(self, trial: optuna.Trial, params: Params, kind: str) -> None:
        """Measure the files that the candidate would have.

        Raises:
            TrialPruned: they are too large or too slow, whatever the candidate learns.
            UserError: it can't be exported.
        """
        student, runs = params.student, params.evaluate.latency_runs
        ships, images = params.compress.ships, self.val.images
        files: Files = files_of(student.model, student.image_size, ships, self.dataset, images, runs)
        figures = files.figures(kind)
        trial.set_user_attr(FILES, figures)
        known = {name: bounds for name, bounds in self.gates.items() if name in OF_FILES}
        reasons = failed(figures, kind, known, len(self.val))
        if reasons and not trial.user_attrs.get(REPEATS):
            _constrain(trial, figures, kind, known, len(self.val))
            raise _stopped(trial, "; ".join(f"{each.gate} {format_value(each.value or 0)}" for each in reasons))


class _Watch:
    """Follows the validations of a trial, and ends it if it is clearly worse or there is no time for it."""

    def __init__(self, search: Search, trial: optuna.Trial, steps: int) -> None:
        self._search, self._trial, self._steps = search, trial, steps
        self.began, self.step = time.monotonic(), 0
        self.writes = False  # whether it is at the study's database
        self._first: tuple[int, float] | None = None

    def __call__(self, step: int, accuracy: float) -> None:
        self.writes = True
        try:
            self._follow(step, accuracy)
        finally:
            self.writes = False

    def _follow(self, step: int, accuracy: float) -> None:
        now, search, trial, self.step = time.monotonic(), self._search, self._trial, step
        if self._first is None:
            self._first = step, now
        first, then = self._first
        pace = (now - then) / (step - first) if step > first else 0.0  # the first steps also import and compile
        if step < self._steps and now + (self._steps - step) * pace > search.end:
            raise OutOfTime
        rungs = trial.user_attrs.get(RUNG, {})
        for rung in RUNGS:
            if str(rung) not in rungs and step >= rung * self._steps:
                rungs = rungs | {str(rung): accuracy}
                trial.set_user_attr(RUNG, rungs)
                self._judge(str(rung), step, accuracy)

    def _judge(self, rung: str, step: int, accuracy: float) -> None:
        search, trial = self._search, self._trial
        if trial.user_attrs.get(PRESENT) or trial.user_attrs.get(REPEATS) is not None or step == self._steps:
            return
        others = [
            self._losses(each, rung)
            for each in search.study.get_trials(deepcopy=False)
            if each.number != trial.number and rung in each.user_attrs.get(RUNG, {}) and not is_repeat(each)
        ]
        margin = math.sqrt(max(accuracy * (1 - accuracy), 1e-9) / len(search.val))
        if not goes_on(self._losses(trial, rung), others, margin):
            why = f"clearly worse after {100 * float(rung):g} % of its steps"
            raise _stopped(trial, why)

    def _losses(self, trial: optuna.Trial | FrozenTrial, rung: str) -> tuple[float, ...]:
        costs = [name for name in self._search.objectives if name in OF_FILES]
        return (-trial.user_attrs[RUNG][rung], *losses_of(trial.user_attrs[FILES], costs))


@contextmanager
def time_limit(end: float, writes: Callable[[], bool]) -> Iterator[None]:
    """Break off what runs in the block when the time is over, however long it is to its next validation.

    Args:
        end: of the time, by :func:`time.monotonic`.
        writes: tells if the block is at the study's database, and is waited for: a transaction of SQLite that is broken
            off can keep it locked.

    Raises:
        OutOfTime: it is over.
    """

    def over(_signal: int, _frame: FrameType | None) -> None:
        if not writes():
            raise OutOfTime
        signal.setitimer(signal.ITIMER_REAL, _AGAIN_S)

    before = signal.signal(signal.SIGALRM, over)
    left, _ = signal.setitimer(signal.ITIMER_REAL, min(max(0.001, end - time.monotonic()), _LONGEST_S))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, left)


def sampler(seed: int, number: int) -> optuna.samplers.BaseSampler:
    """The sampler of a trial, so that a study which goes on draws what it would have drawn without a break."""
    own = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
    return optuna.samplers.TPESampler(seed=own, n_startup_trials=FEW, multivariate=True)


def begin(search: Search, project: str) -> None:
    """Queue what is tried first: trials that were broken off, or else what is known before anything is drawn.

    That is the present student, what earlier studies found, and the present student at each smaller width: the first
    answers to how small it can be, which ten minutes of drawing may miss. Trials that were refused are tried again once
    the gates have been loosened: without the present student among them, others would be compared with nothing.
    """
    study = search.study
    taken_up = {trial.user_attrs.get(CONTINUES) for trial in study.get_trials(deepcopy=False)}
    for trial in study.get_trials(deepcopy=False):
        waits = trial.user_attrs.get(UNFINISHED) or passes_now(trial, search.gates)
        if waits and trial.number not in taken_up:
            take_up(study, trial)
    if study.get_trials(deepcopy=False):
        return
    present = present_values(search.params)
    values = held(present, search.drawn)
    whole = {name for name in present if name in search.drawn} == set(values)
    study.enqueue_trial(values, user_attrs={PRESENT: True} if whole else {})
    for each in [*_inherited(search, project), *(narrower(values, search.drawn) if whole else [])]:
        study.enqueue_trial(each, skip_if_exists=True)


def _inherited(search: Search, project: str) -> list[dict[str, Any]]:
    """What was best in the last other study of this project, as far as the space holds it."""
    summaries = optuna.get_all_study_summaries(search.storage, include_best_trial=False)
    own = search.study.study_name
    others = [each for each in summaries if each.study_name.startswith(f"{project}-") and each.study_name != own]
    begun = [(each.datetime_start, each.study_name) for each in others if each.datetime_start]
    if not begun:
        return []
    best = optuna.load_study(study_name=max(begun)[1], storage=search.storage).best_trials
    found = [held(trial.params, search.drawn) for trial in best if not is_repeat(trial)]
    return [values for values in found if values][:_INHERITED]


def repeat(search: Search, row: Row) -> None:
    """Train a row's student once more, with the first seed that no worker has tried for it."""
    trials = search.study.get_trials(deepcopy=False)
    own = (each for each in trials if each.user_attrs.get(REPEATS) == row.number)
    tried = {each.user_attrs[SEED] for each in own if each.state is not TrialState.FAIL}
    seeds = ((search.params.seed + _SEED_STEP * number) % 2**32 for number in count(1))
    seed = next(seed for seed in seeds if seed not in tried)
    set_aside(search.study, search.storage)
    search.study.enqueue_trial(trials[row.number].params, user_attrs={REPEATS: row.number, SEED: seed})
    search.run()


def _constrain(trial: optuna.Trial, figures: Mapping[str, float], kind: str, gates: Bounds, images: int) -> None:
    """Tell the sampler by how much a candidate misses each gate, in parts of the limit."""
    for reason in failed(figures, kind, gates, images):
        if reason.limit is not None and reason.value is not None:
            miss = abs(reason.value - reason.limit) / max(abs(reason.limit), 1e-9)
            trial.set_constraint(f"{reason.gate}.{reason.side}", miss)


def _stopped(trial: optuna.Trial, why: str) -> optuna.TrialPruned:
    trial.set_user_attr(WHY, why)
    return optuna.TrialPruned(why)


def hopeless(search: Search) -> str:
    """Say why no student was trained to its end."""
    if search.foreseen is not None:
        needed = search.foreseen / (1 - _REPEATING)
        return (
            f"--minutes is too short for one trial on this machine, which takes about {search.foreseen:,.0f} s: give "
            f"{math.ceil(needed / 6) / 10:g} or more."
        )
    trials = search.study.get_trials(deepcopy=False)
    refused = [trial for trial in trials if is_refused(trial) and not passes_now(trial, search.gates)]
    if refused:
        return nearest(refused, search.gates)
    return "--minutes is too short: no trial has ended; give several minutes."
