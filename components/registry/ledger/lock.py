"""One lock per model: only its holder changes the model's versions and aliases.

With an embedded MLflow (``sqlite:``) it is the operating system's lock on a file next to the database. So every
checkout that uses the database respects it, and it is free as soon as its holder is gone, however it died.

With a server it is that lock, for the processes of one checkout, and a *lease in the registry itself*: any client that
can move the alias can take it, and it needs no other service. A lease is a registered model ``<model>.lock-<n>``, whose
creation is atomic in MLflow's database. A contender creates one and *then* lists them all; it holds the lock if no
other live lease exists, else it deletes its own. Of two contenders, the one that listed later saw the other's lease, so
they never both hold the lock. The holder renews its lease with a beat every few seconds; a contender considers a lease
dead when it has seen the same beat for ``LEASE_S`` on its own clock, so that no two clocks are ever compared.

Guaranteed: no two holders write, unless one of them is held up for more than half of ``LEASE_S`` between ``check`` and
the write that follows it milliseconds later. That is noticed when the aliases are read back, and in the ledger.
"""

import random
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from reflux.components.core.errors import UserError
from reflux.components.registry import client

if TYPE_CHECKING:
    from mlflow import MlflowClient

LOCKS = Path(".reflux/locks")
WAIT_S = 120.0
LEASE_S = 30.0

_LONGEST_PAUSE_S = 2.0

Check = Callable[[], object]
"""Raises an error if the caller must not go on."""


class LockLost(UserError):
    """The lease was taken over while its holder stood still, or could not be renewed in time."""


@contextmanager
def held(mlflow: "MlflowClient", model_name: str, waiting: Check = lambda: None) -> Iterator[Check]:
    """Hold a model's lock.

    Args:
        mlflow: the client.
        model_name: the registered model.
        waiting: called repeatedly while another process holds the lease; an error that it raises ends the wait.

    Yields:
        A check for the holder to call right before each write that only the holder may do; it raises ``LockLost``.

    Raises:
        UserError: other processes held the lock for two minutes.
    """
    database = _database()
    folder = database.parent / LOCKS if database else LOCKS
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{re.sub(r'[^A-Za-z0-9_-]', '_', model_name)}.lock"
    deadline = time.monotonic() + WAIT_S
    try:
        file = FileLock(path, timeout=WAIT_S).acquire()
    except Timeout:
        raise _busy(model_name, "Another process", str(path)) from None
    with file:
        if database:
            yield lambda: None
            return
        with _leased(mlflow, model_name, deadline, waiting) as check:
            yield check


def _database() -> Path | None:
    """The SQLite file of the registry; None for a server."""
    import mlflow

    uri = mlflow.get_registry_uri()
    return Path(uri.removeprefix("sqlite:///").partition("?")[0]) if uri.startswith("sqlite:") else None


def _busy(model_name: str, who: str, where: str) -> UserError:
    return UserError(
        f"{who} has been registering or promoting {model_name} for two minutes ({where}): "
        "wait for it, or stop it, and run again."
    )


@dataclass(frozen=True)
class _LeaseEntry:
    """A lease in the registry."""

    name: str
    number: int
    owner: str
    beat: str
    by: str


@contextmanager
def _leased(mlflow: "MlflowClient", model_name: str, deadline: float, waiting: Check) -> Iterator[Check]:
    lease = _Lease(mlflow, model_name)
    lease.acquire(deadline, waiting)
    ended = threading.Event()
    threading.Thread(target=lease.keep, args=(ended,), name="registry-lease", daemon=True).start()
    try:
        yield lease.check
    finally:
        ended.set()
        lease.release()


class _Lease:
    """One contender for the lease."""

    def __init__(self, mlflow: "MlflowClient", model_name: str) -> None:
        self._mlflow = mlflow
        self._model = model_name
        self._prefix = f"{model_name}.lock-"
        self._owner = uuid.uuid4().hex
        self._name = ""
        self._beaten = 0.0
        self._first_seen: dict[_LeaseEntry, float] = {}

    def acquire(self, deadline: float, waiting: Check) -> None:
        """Wait for the lease, and call ``waiting`` between two attempts.

        Raises:
            UserError: it did not become free before ``deadline`` (on the monotonic clock).
        """
        pause = 0.1
        while True:
            leases = self._all()
            live = self._live(leases)
            if not live and self._claim(max((lease.number for lease in leases), default=0) + 1):
                return
            if live and time.monotonic() > deadline:
                raise _busy(self._model, live[0].by, f"the registered model {live[0].name}")
            waiting()
            time.sleep(random.uniform(0.2, 1) * pause)  # noqa: S311
            pause = min(2 * pause, _LONGEST_PAUSE_S)

    def check(self) -> None:
        """Check that this contender still holds the lease.

        Raises:
            LockLost: it is gone, or was not renewed for half of ``LEASE_S``.
        """
        if not self._is_mine() or time.monotonic() - self._beaten > LEASE_S / 2:
            raise LockLost(
                f"The lock on {self._model} was lost, as this process or MLflow stood still for too long: its new "
                "holder finishes or refuses what was begun; `reflux history` says which."
            )

    def keep(self, ended: threading.Event) -> None:
        """Renew the lease until the block ends or another process has it."""
        from mlflow.exceptions import MlflowException

        number = 0
        while not ended.wait(LEASE_S / 6):
            # The time before the request: a contender sees this beat only later.
            now, number = time.monotonic(), number + 1
            with suppress(MlflowException):
                if not self._is_mine() or ended.is_set():
                    return
                self._mlflow.set_registered_model_tag(self._name, "beat", str(number))
                self._beaten = now

    def release(self) -> None:
        """Delete the lease, unless another process may have it by now; one that can't be deleted expires."""
        from mlflow.exceptions import MlflowException

        with suppress(MlflowException):
            if time.monotonic() - self._beaten < LEASE_S / 2:
                self._mlflow.delete_registered_model(self._name)

    def _claim(self, number: int) -> bool:
        from mlflow.exceptions import MlflowException

        self._name, self._beaten = f"{self._prefix}{number}", time.monotonic()
        try:
            client.retry(
                lambda: self._mlflow.create_registered_model(
                    self._name,
                    tags={"owner": self._owner, "beat": "0", "by": client.whoami()},
                    description=f"The lock of a process that is registering or promoting {self._model}.",
                )
            )
        except MlflowException as error:
            # MLflow's client may have repeated a request that had succeeded: the list says whose lease it is.
            if error.error_code != "RESOURCE_ALREADY_EXISTS" and not client.is_not_found(error):
                raise
        leases = self._all()
        mine = [lease for lease in leases if lease.owner == self._owner]
        others = [lease for lease in leases if lease.owner != self._owner]
        if not mine:
            return False
        if self._live(others):
            self.release()
            return False
        for dead in others:
            client.if_exists(self._mlflow.delete_registered_model, dead.name)
        return True

    def _is_mine(self) -> bool:
        lease = client.if_exists(self._mlflow.get_registered_model, self._name)
        return lease is not None and lease.tags.get("owner") == self._owner

    def _live(self, leases: list[_LeaseEntry]) -> list[_LeaseEntry]:
        return [lease for lease in leases if self._last_look - self._first_seen[lease] < LEASE_S]

    def _all(self) -> list[_LeaseEntry]:
        # The time before the request: a response that took long says nothing about the time since.
        self._last_look = time.monotonic()
        leases = []
        for model in self._mlflow.search_registered_models(f"name LIKE '{self._prefix}%'", max_results=1000):
            name, number = model.name, model.name.removeprefix(self._prefix)
            if number.isdecimal():  # `_` in LIKE means any character
                owner, beat = model.tags.get("owner", ""), model.tags.get("beat", "")
                leases.append(_LeaseEntry(name, int(number), owner, beat, model.tags.get("by", "Another process")))
        self._first_seen = {lease: self._first_seen.get(lease, self._last_look) for lease in leases}
        return leases
