"""The model registry as this package uses it: versions, aliases, one lock a model, errors as sentences."""

import getpass
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from filelock import FileLock, Timeout

from components.core import tracking
from components.core.artifacts import mendable
from components.core.errors import UserError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.exceptions import MlflowException

CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"
LOCKS = Path(".reflux/locks")

_LOCK_SECONDS = 120.0
_NOT_FOUND = ("RESOURCE_DOES_NOT_EXIST", "NOT_FOUND")


class Unreachable(UserError):
    """The MLflow server does not answer; waiting may mend it."""


def client() -> "MlflowClient":
    """The MLflow client.

    Raises:
        UserError: no server is configured.
    """
    if tracking.uri() is None:
        raise UserError("MLFLOW_TRACKING_URI is not set: set it, or use the `reflux` command, which sets it.")
    return tracking.client()


def address() -> str:
    """Where MLflow is, without the password that its URI may hold."""
    return re.sub(r"//[^/@]*@", "//", tracking.uri() or "")


@contextmanager
def speaking() -> Iterator[None]:
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
        if error.error_code == "TEMPORARILY_UNAVAILABLE" or "failed with exception" in str(error):
            raise _unreachable() from error
        raise
    except OSError as error:
        raise mendable(error, Path(error.filename or LOCKS)) from error


def _unreachable() -> Unreachable:
    mend = "start it and run the command again; nothing is trained twice"
    if not urlsplit(address()).scheme.startswith("http"):
        mend = "check that the database is there, writable and not locked, and run the command again"
    return Unreachable(f"MLflow at {address()} does not answer: {mend}.")


@contextmanager
def lock(model_name: str) -> Iterator[None]:
    """Hold the one lock that this checkout has for a model's versions and aliases.

    It is the operating system's, so it is free as soon as its holder is gone, however it died. Its holder may take it
    again.

    Raises:
        UserError: another process held it for two minutes.
    """
    LOCKS.mkdir(parents=True, exist_ok=True)
    path = LOCKS / f"{re.sub(r'[^A-Za-z0-9_-]', '_', model_name)}.lock"
    try:
        with FileLock(path, timeout=_LOCK_SECONDS, is_singleton=True):
            yield
    except Timeout:
        raise UserError(
            f"Another process has been registering or promoting {model_name} for two minutes ({path}): "
            "wait for it, or stop it, and run again."
        ) from None


def whoami() -> str:
    """``user@host``."""
    return f"{os.environ.get('USER') or _login()}@{socket.gethostname()}"


def _login() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user id without a name
        return str(os.getuid())


def versions(mlflow: "MlflowClient", model_name: str) -> list["ModelVersion"]:
    """Every version of a model, oldest first; none when the model is not registered."""
    found: list[ModelVersion] = []
    token = None
    while True:
        page = mlflow.search_model_versions(f"name = '{model_name}'", page_token=token)
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
    from mlflow.exceptions import MlflowException

    try:
        model = mlflow.get_registered_model(model_name)
    except MlflowException as error:
        if error.error_code not in _NOT_FOUND:
            raise
        raise UserError(f"No model is registered as {model_name} in {address()}: `reflux run` makes one.") from None
    return {alias: int(number) for alias, number in model.aliases.items()}


def point(mlflow: "MlflowClient", model_name: str, alias: str, number: int | None) -> None:
    """Set an alias, or take it away."""
    if number is None:
        mlflow.delete_registered_model_alias(model_name, alias)
    else:
        mlflow.set_registered_model_alias(model_name, alias, str(number))


def tag(mlflow: "MlflowClient", found: "ModelVersion", values: dict[str, str]) -> None:
    """Set tags of a version, in the order given."""
    for key, value in values.items():
        mlflow.set_model_version_tag(found.name, str(found.version), key, value)


def missing(error: "MlflowException") -> bool:
    """Whether MLflow says that what was asked for does not exist."""
    return error.error_code in _NOT_FOUND
