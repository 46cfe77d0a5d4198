"""The model registry as this package uses it: versions, aliases, errors as sentences."""

import getpass
import logging
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

from tenacity import Retrying, retry_if_exception_type, stop_before_delay, wait_random_exponential

from components.core.artifacts import mendable
from components.core.errors import UserError
from components.core.runtime import tracking

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.exceptions import MlflowException

CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"
PATIENCE_S = 15.0

T = TypeVar("T")

_NOT_FOUND = ("RESOURCE_DOES_NOT_EXIST", "NOT_FOUND")


class Unreachable(UserError):
    """The MLflow server does not answer; waiting may mend it."""


def connect() -> "MlflowClient":
    """The MLflow client.

    Raises:
        UserError: no server is configured.
    """
    if tracking.uri() is None:
        raise UserError("MLFLOW_TRACKING_URI is not set: set it, or use the `reflux` command, which sets it.")
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # tracebacks of what `translate_errors` says
    return tracking.client()


def address() -> str:
    """Where MLflow is, without the password that its URI may hold."""
    return tracking.without_password(tracking.uri() or "")


@contextmanager
def translate_errors() -> Iterator[None]:
    """Turn the failures of a server that is away, or of a disk, into one sentence.

    Raises:
        Unreachable: MLflow does not answer.
        UserError: the disk is full or not writable.
    """
    from mlflow.exceptions import MlflowException
    from requests.exceptions import RequestException
    from sqlalchemy.exc import OperationalError

    try:
        yield
    except (RequestException, OperationalError) as error:
        raise _unreachable() from error
    except MlflowException as error:
        # A server whose connections to its database are all taken answers 400, which no client of MLflow repeats.
        busy = "QueuePool limit" in str(error)
        if busy or error.error_code == "TEMPORARILY_UNAVAILABLE" or "failed with exception" in str(error):
            raise _unreachable() from error
        raise
    except OSError as error:
        raise mendable(error, Path(error.filename or ".reflux")) from error


def _unreachable() -> Unreachable:
    mend = "start it and run the command again; nothing is trained twice"
    if not urlsplit(address()).scheme.startswith("http"):
        mend = "check that the database is there, writable and not locked, and run the command again"
    return Unreachable(f"MLflow at {address()} does not answer: {mend}.")


def retry(work: Callable[[], T]) -> T:
    """Retry an idempotent call until MLflow answers, for ``PATIENCE_S`` seconds.

    MLflow's own client sends a request three times and waits at most 15 seconds for each (``core.runtime.tracking``),
    so a server that accepts requests and never answers is given up on after a little over a minute.

    Raises:
        Unreachable: MLflow did not answer in that time.
    """
    attempts = Retrying(
        retry=retry_if_exception_type(Unreachable),
        wait=wait_random_exponential(multiplier=0.25),
        stop=stop_before_delay(PATIENCE_S),
        reraise=True,
    )
    return attempts(translate_errors()(work))


def whoami() -> str:
    """``user@host``."""
    return f"{os.environ.get('USER') or _login()}@{socket.gethostname()}"


def _login() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user id without a name
        return str(os.getuid())


def versions(mlflow: "MlflowClient", model_name: str, that: str = "") -> list["ModelVersion"]:
    """Versions of a model, oldest first; none when the model is not registered.

    Args:
        mlflow: the client.
        model_name: the registered model.
        that: a condition in MLflow's words, such as a tag's value; by default all of them, which takes a second when
            there are a thousand.
    """
    asked = f"name = '{model_name}'" + (f" AND {that}" if that else "")
    found: list[ModelVersion] = []
    token = None
    while True:
        page = mlflow.search_model_versions(asked, page_token=token)
        found += page
        token = page.token
        if not token:
            return sorted(found, key=lambda v: int(v.version))


def version(mlflow: "MlflowClient", model_name: str, number: int) -> "ModelVersion":
    """One version, with its tags and aliases.

    Raises:
        UserError: the model or the version is not registered.
    """
    from mlflow.exceptions import MlflowException

    try:
        return mlflow.get_model_version(model_name, str(number))
    except MlflowException as error:
        if error.error_code not in _NOT_FOUND:
            raise
        aliases(mlflow, model_name)
        raise UserError(f"{model_name} has no version {number}: `reflux history` lists its versions.") from None


def aliases(mlflow: "MlflowClient", model_name: str) -> dict[str, int]:
    """The version each alias points at.

    Raises:
        UserError: the model is not registered.
    """
    # To answer with one model by its name, MLflow reads each version that it ever had.
    found = mlflow.search_registered_models(f"name = '{model_name}'", max_results=1)
    if not found:
        raise UserError(f"No model is registered as {model_name} in {address()}: `reflux run` makes one.")
    return {alias: int(number) for alias, number in found[0].aliases.items()}


def set_alias(mlflow: "MlflowClient", model_name: str, alias: str, number: int | None) -> None:
    """Set an alias, or take it away."""
    if number is None:
        mlflow.delete_registered_model_alias(model_name, alias)
    else:
        mlflow.set_registered_model_alias(model_name, alias, str(number))


def set_tags(mlflow: "MlflowClient", model_name: str, number: int, values: Mapping[str, str | None]) -> None:
    """Set tags of a version, in the order given; None takes one away."""
    from mlflow.exceptions import MlflowException

    for key, value in values.items():
        if value is not None:
            mlflow.set_model_version_tag(model_name, str(number), key, value)
            continue
        try:
            mlflow.delete_model_version_tag(model_name, str(number), key)
        except MlflowException as error:
            if not is_not_found(error):
                raise


def describe_champion(champion: int | None) -> str:
    """The champion in a sentence."""
    return "none" if champion is None else f"version {champion}"


def is_not_found(error: "MlflowException") -> bool:
    """Whether MLflow says that what was asked for does not exist."""
    return error.error_code in _NOT_FOUND
