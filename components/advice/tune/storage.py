"""The database of a study, in which a call goes on where the last one ended, and several processes may work."""

import hashlib
import json
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from reflux.components.advice.tune.result import OBJECTIVES
from reflux.components.core.errors import UserError
from reflux.components.core.runtime.tracking import driver, without_secrets

STORAGE_VARIABLE = "REFLUX_TUNE_STORAGE"
_HEARTBEAT_S, DEAD_AFTER_S = 10, 30
_LOCKED_S = 60  # that a worker waits for another one's write to SQLite

# What is kept with a trial.
CHANGES, FIGURES, WHY, RUNG, FILES = "changes", "figures", "why", "rungs", "files"
PRESENT, REPEATS, SEED, UNFINISHED, CONTINUES = "present", "repeats", "seed", "unfinished", "continues"


def open_study(url: str, name: str, objectives: Sequence[str]) -> tuple[optuna.Study, optuna.storages.BaseStorage]:
    """Open or begin a study; its storage comes with it.

    Args:
        url: of the storage.
        name: of the study.
        objectives: names among ``OBJECTIVES``.

    Raises:
        UserError: the storage is away, lacks its driver, or is of another version of Optuna.
    """
    shown = without_secrets(url)
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    # Retries of trials that are no longer alive are what Optuna calls experimental.
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    with storage_errors(url):
        try:
            storage = optuna.storages.RDBStorage(
                url,
                engine_kwargs={"connect_args": {"timeout": _LOCKED_S}} if url.startswith("sqlite") else None,
                heartbeat_interval=_HEARTBEAT_S,
                grace_period=DEAD_AFTER_S,
                heartbeat_stale_trial_callback=take_up,
            )
        except ImportError as error:
            package = driver(error)
            raise UserError(
                f"The storage of studies, {shown}, needs the package {package}: `pip install {package}`."
            ) from None
        except RuntimeError as error:
            raise UserError(
                f"The storage of studies, {shown}, was made by another version of Optuna "
                f"({str(error).splitlines()[0]}): upgrade it with `optuna storage upgrade --storage {shown}`, or set "
                f"{STORAGE_VARIABLE} to another."
            ) from None
        best = {True: optuna.study.StudyDirection.MAXIMIZE, False: optuna.study.StudyDirection.MINIMIZE}
        directions = [best[OBJECTIVES[objective]] for objective in objectives]
        study = optuna.create_study(storage=storage, study_name=name, directions=directions, load_if_exists=True)
        return study, storage


@contextmanager
def storage_errors(url: str) -> Iterator[None]:
    """Turn what Optuna and its database raise about the storage into one sentence, and nothing that training raises.

    Raises:
        UserError: the storage is away.
    """
    try:
        yield
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        raise UserError(_unusable(without_secrets(url), str(error).strip().splitlines()[0])) from None


def _unusable(shown: str, why: str) -> str:
    return f"The storage of studies, {shown}, can't be used ({why}): set {STORAGE_VARIABLE} to another."


def study_name(project: str, decides: Any) -> str:
    """The name of the study of these facts: with others its trials could not be compared."""
    return f"{project}-{hashlib.sha256(json.dumps(decides, sort_keys=True, default=str).encode()).hexdigest()[:12]}"


def take_up(study: optuna.Study, trial: FrozenTrial) -> None:
    """Queue a trial again that was broken off; it goes on from its last checkpoint."""
    kept = {name: trial.user_attrs[name] for name in (PRESENT, REPEATS, SEED) if name in trial.user_attrs}
    # What was queued is in the trial's params only once it has begun.
    params = trial.system_attrs.get("fixed_params", {}) | trial.params
    study.enqueue_trial(params, user_attrs=kept | {CONTINUES: trial.number})


def set_aside(study: optuna.Study, storage: optuna.storages.BaseStorage) -> None:
    """Leave the trials that wait to the next call: Optuna runs them in their order, before one that is queued now."""
    for trial in study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
        # Only one worker can set it running, which has it then.
        if REPEATS not in trial.user_attrs and storage.set_trial_state_values(trial._trial_id, TrialState.RUNNING):
            storage.set_trial_user_attr(trial._trial_id, UNFINISHED, True)
            storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
