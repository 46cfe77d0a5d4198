"""The checks that ``reflux doctor`` makes of shared servers: versions, clocks, logins, a file written and read back."""

import ipaddress
import os
import shutil
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from importlib.metadata import version
from pathlib import Path
from urllib.parse import urlsplit

from reflux.components.core.errors import UserError
from reflux.components.core.project import root
from reflux.components.core.runtime import tracking
from reflux.flows.repo.checkout import refusals_of_dvc

_PATIENCE_S = 10.0
_LOW_DISK = 2 * 2**30
_SKEW_S = 5.0  # leases and heartbeats are counted in tens of seconds
_LOGIN = {
    "MLflow": "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD",
    "Prefect": "PREFECT_API_AUTH_STRING (user:password)",
}


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        what: what was looked at.
        observed: what was found.
        fix: how to fix it; empty when all is well.
    """

    what: str
    observed: str
    fix: str = ""


@dataclass(frozen=True)
class Answer:
    """A server's answer to a request without a login.

    Attributes:
        status: the HTTP status.
        ahead_s: seconds by which its clock is ahead of this one; None when its answer has no date.
    """

    status: int
    ahead_s: float | None


def ask(url: str) -> Answer | None:
    """GET ``url`` without a login; None when there is no answer."""
    began = time.time()
    try:
        with urllib.request.urlopen(url, timeout=_PATIENCE_S) as response:  # noqa: S310 - the user's own server
            status, date = int(response.status), response.headers.get("Date")
    except urllib.error.HTTPError as error:
        status, date = error.code, error.headers.get("Date")
    except (OSError, ValueError):
        return None
    return Answer(status, _ahead(date, began, time.time()))


def _ahead(date: str | None, began: float, ended: float) -> float | None:
    """Seconds between a Date header, of whole seconds, and the interval in which it was written."""
    if date is None:
        return None
    theirs = parsedate_to_datetime(date).timestamp()
    return max(theirs - ended, 0.0) or min(theirs + 1 - began, 0.0)


def check(name: str, address: str, protected: str, health: str) -> tuple[bool, list[Finding]]:
    """Check that a server answers, that its clock is right, and that it asks for a login.

    Args:
        name: MLflow or Prefect.
        address: for the report, without a password.
        protected: a URL that should need a login.
        health: a URL that needs none.

    Returns:
        Whether it answers, and the findings so far.
    """
    if (healthy := ask(health)) is None:
        return False, [Finding(name, address, "it does not answer: start it, or configure another one")]
    findings = []
    if healthy.ahead_s is not None:
        off = abs(healthy.ahead_s)
        fix = "set both clocks by NTP: timedatectl set-ntp true" if off > _SKEW_S else ""
        findings.append(Finding(f"{name}, clock", f"{off:.0f} s off this machine's" if off >= 1 else "as here", fix))
    unprotected = (answer := ask(protected)) is not None and answer.status == 200
    if unprotected and not is_loopback(address):
        how = "--app-name basic-auth" if name == "MLflow" else "PREFECT_SERVER_API_AUTH_STRING"
        fix = f"anyone who can reach it can change models and runs: start it with {how}"
        findings.append(Finding(f"{name}, login", "none is required", fix))
    return True, findings


def is_loopback(address: str) -> bool:
    """Whether a server is reachable from this machine only."""
    host = urlsplit(address).hostname or ""
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def mlflow(uri: str, project: str) -> Iterator[Finding]:
    """Check the MLflow server: clock, login, version, and a file written to its artifact store and read back.

    Args:
        uri: ``MLFLOW_TRACKING_URI``, an HTTP address.
        project: the experiment of the run that gets the file; the run is deleted at once.
    """
    address = tracking.without_secrets(uri).rstrip("/")
    is_up, findings = check("MLflow", address, f"{address}/version", f"{address}/health")
    yield from findings
    if not is_up:
        return
    try:
        theirs = _mlflow_version(uri)
    except UserError as error:
        yield Finding("MLflow", address, str(error))
        return
    yield Finding("MLflow", f"{address}, version {theirs}", _versions("mlflow", theirs))
    try:
        store = _there_and_back(project)
    except Exception as error:
        fix = "check the server's --artifacts-destination, MLFLOW_S3_ENDPOINT_URL and S3 keys, and its log"
        yield Finding("MLflow, artifacts", _first_line(error), fix)
    else:
        yield Finding("MLflow, artifacts", f"written and read back ({store})")


def _mlflow_version(uri: str) -> str:
    """The server's version, which needs a login.

    Raises:
        UserError: it refuses the login, or is not MLflow.
    """
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    answer = http_request(get_default_host_creds(uri), "/version", "GET", max_retries=0, timeout=_PATIENCE_S)
    if answer.status_code in (401, 403):
        raise UserError(_refused("MLflow", "MLFLOW_TRACKING_USERNAME" in os.environ))
    if answer.status_code != 200 or not answer.text[:1].isdigit():
        raise UserError("it answers, but is not MLflow: check MLFLOW_TRACKING_URI")
    return str(answer.text.strip())


def _there_and_back(project: str) -> str:
    """Log a file to a run, read it back, and delete both; returns the scheme of the store.

    Raises:
        ValueError: the file has changed on the way.
    """
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    client = tracking.client()
    run = client.create_run(tracking.experiment_id(client, project), run_name="reflux doctor").info
    try:
        with tempfile.TemporaryDirectory() as scratch:
            sent = Path(scratch) / "doctor.txt"
            sent.write_text(uuid.uuid4().hex, encoding="utf-8")
            client.log_artifact(run.run_id, str(sent))
            (Path(scratch) / "back").mkdir()
            back = Path(client.download_artifacts(run.run_id, sent.name, str(Path(scratch) / "back")))
            if back.read_bytes() != sent.read_bytes():
                raise ValueError("a file came back changed")
        get_artifact_repository(run.artifact_uri).delete_artifacts("doctor.txt")
    finally:
        client.delete_run(run.run_id)
    return urlsplit(run.artifact_uri).scheme or "file"


def prefect(api: str) -> Iterator[Finding]:
    """Check the Prefect server: clock, login and version."""
    address = tracking.without_secrets(api).rstrip("/")
    is_up, findings = check("Prefect", address, f"{address}/admin/version", f"{address}/health")
    yield from findings
    if not is_up:
        return
    from prefect.client.orchestration import get_client

    try:
        with get_client(sync_client=True) as client:
            theirs = client.api_version()
    except Exception as error:
        refused = "401" in str(error) or "Unauthorized" in str(error)
        fix = _refused("Prefect", "PREFECT_API_AUTH_STRING" in os.environ) if refused else "check PREFECT_API_URL"
        yield Finding("Prefect", address if refused else _first_line(error), fix)
        return
    yield Finding("Prefect", f"{address}, version {theirs}", _versions("prefect", theirs))


def dvc() -> Iterator[Finding]:
    """Check the disk of DVC's cache, and write a file to its default remote and read it back."""
    from dvc.repo import Repo

    if not (root() / ".dvc").is_dir():
        return
    try:
        with refusals_of_dvc():
            opened = Repo()
    except UserError as error:
        yield Finding("DVC", "refused", str(error))
        return
    with opened as repo:
        yield disk("DVC cache", Path(repo.cache.local.path))
        if not (name := repo.config["core"].get("remote")):
            yield Finding("DVC remote", "none: data and results stay on this machine")
            return
        url = tracking.without_secrets(str(repo.config["remote"].get(name, {}).get("url", "")))
        try:
            remote = repo.cloud.get_remote()
            probe = remote.fs.join(remote.path, f"reflux-doctor-{uuid.uuid4().hex}")
            sent = uuid.uuid4().bytes
            remote.fs.makedirs(remote.path, exist_ok=True)
            remote.fs.pipe_file(probe, sent)
            back = remote.fs.cat_file(probe)
            remote.fs.rm_file(probe)
            if back != sent:
                raise ValueError("a file came back changed")
        except Exception as error:
            fix = f"check the URL and the keys of {url or name} (dvc remote list; AWS_ACCESS_KEY_ID, …)"
            yield Finding("DVC remote", _first_line(error), fix)
        else:
            yield Finding("DVC remote", f"{url}, written and read back")


def disk(what: str, folder: Path) -> Finding:
    """Check the free space where a folder is, or will be."""
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(there).free
    fix = "" if free > _LOW_DISK else f"free some space on the disk of {there}: less than 2 GB is left"
    return Finding(what, f"{free / 2**30:.1f} GB free", fix)


def _refused(name: str, given: bool) -> str:
    which = "is refused: correct" if given else "is missing: set"
    return f"your login {which} {_LOGIN[name]}"


def _versions(package: str, theirs: str) -> str:
    """The fix for a server of another minor version, with which this client may not work; empty if they match."""
    ours = version(package)
    same = ours.split(".")[:2] == theirs.split(".")[:2]
    return "" if same else f"this is {package} {ours}: install {package}=={ours} there, or {theirs} here"


def _first_line(error: Exception) -> str:
    """The first line of an exception, without a password."""
    text = str(error).strip() or type(error).__name__
    return tracking.without_secrets(text.splitlines()[0])[:200]
