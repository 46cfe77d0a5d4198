"""What a study has found so far, of the trials in its storage."""

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from reflux.components.advice.tune.result import OF_FILES, Row, failed
from reflux.components.advice.tune.storage import CHANGES, FIGURES, FILES, PRESENT, REPEATS, RUNG, SEED, WHY
from reflux.components.core import contract
from reflux.components.registry.policy.gates import Bounds, Reason, format_value

FEW = 12  # trials say little of the knobs: about one for each


def in_words(figures: Mapping[str, float]) -> str:
    """The figures of a student, in a line."""
    quality = f"{100 * figures['accuracy']:.1f} % of the validation images"
    return f"{quality}, {figures['size_kb']:.1f} KB, {figures['latency_ms_p95']:.2f} ms"


def completed(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that were trained to their end."""
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def is_repeat(trial: FrozenTrial) -> bool:
    """True for a trial that trains another one's student again."""
    return trial.user_attrs.get(REPEATS) is not None


def is_refused(trial: FrozenTrial) -> bool:
    """True for a trial that ended before its training."""
    return trial.state is TrialState.PRUNED and RUNG not in trial.user_attrs


def passes_now(trial: FrozenTrial, gates: Bounds) -> bool:
    """True for a trial that gates have refused untrained, and that the present ones would not."""
    return is_refused(trial) and bool(trial.constraints) and not _failing(trial, gates)


def _failing(trial: FrozenTrial, gates: Bounds) -> list[Reason]:
    """The gates that the files of a trial fail; none if it has no files."""
    known = {name: bounds for name, bounds in gates.items() if name in OF_FILES}
    files = trial.user_attrs.get(FILES)
    return failed(files, "onnx", known, 1) if files else []


def seconds_of(trial: FrozenTrial) -> float:
    """Seconds that a trial took, with all that is done about it; 0 while it runs."""
    return trial.duration.total_seconds() if trial.duration else 0.0


def rows_of(study: optuna.Study) -> list[Row]:
    """The students that were trained to their end, with their repeats."""
    ended = completed(study)
    repeats: dict[int, dict[int, Mapping[str, float]]] = {}
    for trial in ended:
        if is_repeat(trial):  # two workers may have begun the same one in the same moment
            repeats.setdefault(trial.user_attrs[REPEATS], {})[trial.user_attrs[SEED]] = trial.user_attrs[FIGURES]
    return [
        Row(
            trial.number,
            trial.user_attrs[CHANGES],
            trial.user_attrs[FIGURES],
            seconds_of(trial),
            (
                *([trial.user_attrs[FIGURES]] if trial.user_attrs.get(PRESENT) else []),
                *repeats.get(trial.number, {}).values(),
            ),
        )
        for trial in ended
        if not is_repeat(trial)
    ]


def repeats_begun(study: optuna.Study) -> list[int]:
    """The number of the row that each repeat is of which a worker is at, or which waits for one."""
    begun = study.get_trials(deepcopy=False, states=(TrialState.RUNNING, TrialState.WAITING))
    return [trial.user_attrs[REPEATS] for trial in begun if is_repeat(trial)]


def importance(study: optuna.Study) -> dict[str, float]:
    """The share of each knob in what decides the first objective, by PED-ANOVA (Watanabe et al. 2023); of few, none."""
    ended = [trial for trial in completed(study) if not is_repeat(trial)]
    if len(ended) < FEW:
        return {}
    # It asks what leads to low values, and warns of that and of values that are all alike.
    sign = -1 if study.directions[0] is optuna.study.StudyDirection.MAXIMIZE else 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shares = optuna.importance.get_param_importances(study, target=lambda trial: sign * trial.values[0])
    return {name: round(share, 4) for name, share in shares.items() if math.isfinite(share)}


def nearest(trials: Sequence[FrozenTrial], gates: Bounds) -> str:
    """Say which gate none of the refused candidates meets, and how near the nearest comes."""
    refused: list[tuple[float, str]] = []
    for trial in trials:
        reasons, changed = _failing(trial, gates), trial.user_attrs.get(CHANGES, {})
        if not reasons:
            refused.append((math.inf, str(trial.user_attrs.get(WHY))))
            continue
        who = f"{changed['student.model']} as {changed['compress.ships']}"
        for reason in reasons:
            limit, value, unit = reason.limit or 0.0, reason.value or 0.0, contract.FIGURES[reason.gate].unit
            gate = f"registry.gates.{reason.gate}.{reason.side} = {format_value(limit)}"
            sentence = f"{gate}: the nearest is {who} with {format_value(value)} {unit}".rstrip()
            refused.append((abs(value - limit) / max(abs(limit), 1e-9), sentence))
    _, sentence = min(refused)
    return f"No candidate of tune.space meets {sentence}; change the gate, or widen tune.space."


def table(study: optuna.Study) -> list[dict[str, Any]]:
    """A row for each trial: its state, what it changed, and its figures."""
    return [
        {
            "trial": trial.number,
            "state": trial.state.name.lower(),
            "why": trial.user_attrs.get(WHY, ""),
            "repeats": trial.user_attrs.get(REPEATS, ""),
            "seconds": round(seconds_of(trial), 1) or "",
            **{name: str(value) for name, value in trial.user_attrs.get(CHANGES, {}).items()},
            **trial.user_attrs.get(FIGURES, trial.user_attrs.get(FILES, {})),
        }
        for trial in study.get_trials(deepcopy=False)
    ]
