"""MLflow's model registry as this package uses it: versions, aliases, and errors as sentences."""

import getpass
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version as version_of
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, TypeVar
from urllib.parse import urlsplit

from tenacity import Retrying, retry_if_exception_type, stop_before_delay, wait_random_exponential

from reflux.components.core.artifacts import translate_os_error
from reflux.components.core.errors import UserError
from reflux.components.core.runtime import tracking

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.exceptions import MlflowException

CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"
PATIENCE_S = 15.0
_COLUMN = 5000  # characters of a description, and of a version's tag
_LARGEST = 2**31 - 1  # version that MLflow's database has room for

P = ParamSpec("P")
T = TypeVar("T")


class Unreachable(UserError):
    """MLflow does not answer; waiting may help."""


class Refused(UserError):
    """The account may not do this."""


def connect() -> "MlflowClient":
    """Return a client of the configured MLflow.

    Raises:
        Unreachable: its database does not answer, or can't be used.
        UserError: none is configured, or the driver of its database is not installed.
    """
    if tracking.uri() is None:
        raise UserError("MLFLOW_TRACKING_URI is not set: set it, or use the `reflux` command, which sets it.")
    try:
        with translate_errors():
            return tracking.client()
    except ModuleNotFoundError as error:
        package = tracking.driver(error)
        raise UserError(f"MLflow at {address()} needs the package {package}: `pip install {package}`.") from None


def address() -> str:
    """MLflow's URI without the password that it may hold."""
    return tracking.without_secrets(tracking.uri() or "")


@contextmanager
def translate_errors() -> Iterator[None]:
    """Turn the errors of a server that does not answer, a database that can't be used, or a disk, into a sentence.

    Raises:
        Unreachable: MLflow does not answer, or its database is damaged or of another release.
        UserError: the account may not do this, or the disk is full or not writable.
    """
    from alembic.util import CommandError
    from mlflow.exceptions import MlflowException
    from requests.exceptions import RequestException
    from sqlalchemy.exc import DatabaseError, OperationalError

    try:
        yield
    except (RequestException, OperationalError) as error:
        raise _unreachable() from error
    except DatabaseError as error:
        if type(error) is not DatabaseError:  # of a statement
            raise
        raise _damaged(str(error.orig)) from error
    except CommandError as error:
        raise _of_another_release() from error
    except MlflowException as error:
        if "database schema" in str(error):
            raise _of_another_release() from error
        # A server that has no free connection to its database answers 400, which MLflow's client does not retry.
        busy = "QueuePool limit" in str(error)
        if busy or error.error_code == "TEMPORARILY_UNAVAILABLE" or "failed with exception" in str(error):
            raise _unreachable() from error
        if error.error_code in ("PERMISSION_DENIED", "UNAUTHENTICATED"):
            raise _refused() from error
        raise
    except OSError as error:
        raise translate_os_error(error, Path(error.filename or ".reflux")) from error


def _unreachable() -> Unreachable:
    fix = "start it and run the command again; nothing is trained twice"
    if not urlsplit(address()).scheme.startswith("http"):
        fix = "check that the database is there, writable and not locked, and run the command again"
    return Unreachable(f"MLflow at {address()} does not answer: {fix}.")


def _refused() -> Refused:
    account = os.environ.get("MLFLOW_TRACKING_USERNAME") or "this login"
    return Refused(
        f"MLflow at {address()} does not let {account} do this: set MLFLOW_TRACKING_USERNAME and "
        "MLFLOW_TRACKING_PASSWORD to an account that may edit the project's experiments and its registered model."
    )


def _damaged(why: str) -> Unreachable:
    return Unreachable(
        f"MLflow's database {address()} can't be read ({why}): restore a copy of it, or move it away and run "
        "`reflux run`, which begins a new one."
    )


def _of_another_release() -> Unreachable:
    return Unreachable(
        f"MLflow's database {address()} is of another release than MLflow {version_of('mlflow')}, which is installed: "
        f"copy it and run `mlflow db upgrade {address()}`, or install the release that it is of."
    )


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


def identity(name: str | None = None) -> str:
    """The author of an entry in the ledger: the account that MLflow's server knows this process by, and the host.

    Args:
        name: of the person on whose behalf this process acts, as somebody typed it; recorded next to the account.

    Returns:
        ``account@host`` or ``name (account@host)``; of a server that asks for no login ``name`` or ``user@host``.

    Raises:
        Unreachable: MLflow does not answer.
    """
    account = retry(_account)
    if account is None:
        return name or whoami()
    known = f"{account}@{socket.gethostname()}"
    return f"{name} ({known})" if name and name != known else known


def _account() -> str | None:
    """The account of this process's login; None of a database, and of a server without accounts."""
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    uri = tracking.uri() or ""
    if urlsplit(uri).scheme not in ("http", "https"):
        return None
    response = http_request(get_default_host_creds(uri), "/api/2.0/mlflow/users/current", "GET")
    try:
        return str(response.json()["user"]["username"])
    except (ValueError, KeyError, TypeError):
        return None


def _login() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user id without a name
        return str(os.getuid())


def versions(mlflow: "MlflowClient", model_name: str, condition: str = "") -> list["ModelVersion"]:
    """Versions of a model, oldest first; none when the model is not registered.

    Args:
        mlflow: the client.
        model_name: the registered model.
        condition: an MLflow filter, such as a tag's value; without one a thousand versions take a second.
    """
    query = f"name = '{model_name}'" + (f" AND {condition}" if condition else "")
    matches: list[ModelVersion] = []
    token = None
    while True:
        page = mlflow.search_model_versions(query, page_token=token)
        matches += page
        token = page.token
        if not token:
            return sorted(matches, key=lambda v: int(v.version))


def version(mlflow: "MlflowClient", model_name: str, number: int) -> "ModelVersion":
    """One version, with its tags and aliases.

    Raises:
        UserError: the model or the version is not registered.
    """
    known = if_exists(mlflow.get_model_version, model_name, str(number)) if number <= _LARGEST else None
    if known is None:
        aliases(mlflow, model_name)
        raise UserError(f"{model_name} has no version {number}: `reflux history` lists its versions.")
    return known


def named(mlflow: "MlflowClient", model_name: str, which: str) -> "ModelVersion":
    """The version that a number or an alias stands for.

    Raises:
        UserError: there is none.
    """
    number = int(which) if which.isdecimal() else aliases(mlflow, model_name).get(which)
    if number is not None:
        return version(mlflow, model_name, number)
    if which == CHAMPION:
        raise UserError(f"{model_name} has no champion yet, as no version passed its gates: `reflux history` says why.")
    raise UserError(f"{model_name} has no alias {which}: `reflux history` lists the versions and their aliases.")


def aliases(mlflow: "MlflowClient", model_name: str) -> dict[str, int]:
    """The version that each alias points at.

    Raises:
        UserError: the model is not registered.
    """
    # get_registered_model would make MLflow read every version that the model ever had.
    models = mlflow.search_registered_models(f"name = '{model_name}'", max_results=1)
    if not models:
        raise UserError(f"No model is registered as {model_name} in {address()}: `reflux run` makes one.")
    return {alias: int(number) for alias, number in models[0].aliases.items()}


def set_alias(mlflow: "MlflowClient", model_name: str, alias: str, number: int | None) -> None:
    """Point an alias at a version, or delete it (None)."""
    if number is None:
        mlflow.delete_registered_model_alias(model_name, alias)
    else:
        mlflow.set_registered_model_alias(model_name, alias, str(number))


def fit(text: str, most: int = _COLUMN) -> str:
    """Cut a text to the characters that MLflow's columns hold: Postgres refuses a longer one, SQLite takes it."""
    return text if len(text) <= most else f"{text[: most - 1].rstrip()}…"


def set_tags(mlflow: "MlflowClient", model_name: str, number: int, values: Mapping[str, str | None]) -> None:
    """Set tags of a version, in the order given; None deletes one."""
    for key, value in values.items():
        if value is not None:
            mlflow.set_model_version_tag(model_name, str(number), key, fit(value))
        else:
            if_exists(mlflow.delete_model_version_tag, model_name, str(number), key)


def if_exists(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
    """Call MLflow about a thing; None if it does not exist."""
    from mlflow.exceptions import MlflowException

    try:
        return call(*args, **kwargs)
    except MlflowException as error:
        if is_not_found(error):
            return None
        raise


def describe_champion(champion: int | None) -> str:
    """Name the champion in a sentence."""
    return "none" if champion is None else f"version {champion}"


def is_not_found(error: "MlflowException") -> bool:
    """Tell whether MLflow says that a thing does not exist."""
    return error.error_code in ("RESOURCE_DOES_NOT_EXIST", "NOT_FOUND")
