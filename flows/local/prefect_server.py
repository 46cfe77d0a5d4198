"""The embedded Prefect server, for users without one: it lives as long as the command."""

import os
import signal
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from reflux.components.core.errors import UserError
from reflux.components.core.runtime.tracking import without_secrets
from reflux.flows.local.environment import HOME
from reflux.flows.local.supervised import stop, supervised
from reflux.flows.outcome import StageFailed

_SECONDS_TO_START = 120.0
_SECONDS_BETWEEN_LOOKS = 0.1
_GRACE_S = 5.0
_MIGRATED = "migrated"  # a file with the release of Prefect that last opened the database


class PrefectServer:
    """A Prefect server on a free loopback port, its database in ``.reflux/prefect``.

    Prefect can start a temporary server by itself, but that one outlives a flow killed with -9, and starts only when
    the flow does; this one is supervised, and starts while the flow's process is still importing.
    """

    def __init__(self, home: Path = HOME / "prefect") -> None:
        home.mkdir(parents=True, exist_ok=True)
        self._log, self._migrated = home / "server.log", home / _MIGRATED
        port = free_port()
        self.api = f"http://127.0.0.1:{port}/api"
        self.environment = {"PREFECT_HOME": str(home.resolve()), "PREFECT_API_URL": self.api}
        # This server comes and goes with the run: one that is gone won't come back, so don't wait a minute for it.
        self.environment["PREFECT_CLIENT_MAX_RETRIES"] = "1"
        server = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
        with self._log.open("w", encoding="utf-8") as log:
            self._process = supervised(
                [*server, "--no-ui", "--log-level", "WARNING"],
                _settings(home.resolve()),
                stdout=log.fileno(),
                grace_s=_GRACE_S,
                asked_by=signal.SIGTERM,  # 0.2 s; after SIGINT Python takes its time to unload the server, 1.5 s
            )

    def wait(self) -> None:
        """Wait until the server answers.

        Raises:
            UserError: it ended, or did not answer in time.
        """
        deadline = time.monotonic() + _SECONDS_TO_START
        while not is_up(f"{self.api}/health"):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise UserError(
                    f"Prefect's embedded server did not start: {self._log} says why; delete {self._log.parent} (it "
                    "holds only the history of local runs) and run again, or set PREFECT_API_URL to your own server."
                )
            time.sleep(_SECONDS_BETWEEN_LOOKS)
        self._migrated.write_text(version("prefect"), encoding="utf-8")

    @contextmanager
    def needed(self) -> Iterator[None]:
        """Blame this server for what fails in the block once it has ended.

        Raises:
            UserError: in place of Prefect's own errors, when the server has ended.
        """
        try:
            yield
        except (StageFailed, UserError):
            raise
        except Exception as error:
            if self._process.poll() is None:
                raise
            raise UserError(
                f"Prefect's embedded server ended during the run ({self._log} may say why): run again; "
                "what is finished is kept."
            ) from error

    def stop(self) -> None:
        """End the server."""
        stop(self._process)


def _settings(home: Path) -> dict[str, str]:
    """The server's settings: its database is in ``home``, and it starts with only what a run needs."""
    database, migrated = home / "prefect.db", home / _MIGRATED
    settings = {
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": "",
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{database}",
        # Nothing asks it for blocks; registering those of all packages takes half a second or, with many, two.
        "PREFECT_API_BLOCKS_REGISTER_ON_START": "false",
        "PREFECT_MEMOIZE_BLOCK_AUTO_REGISTRATION": "false",
    }
    if database.is_file() and migrated.is_file() and migrated.read_text(encoding="utf-8") == version("prefect"):
        settings["PREFECT_SERVER_DATABASE_MIGRATE_ON_START"] = "false"  # to find nothing to migrate takes a second
    return settings


@contextmanager
def prefect_server() -> Iterator[PrefectServer | None]:
    """Provide a Prefect server for the block: the one in ``PREFECT_API_URL``, or else an embedded one.

    Enter it before Prefect is imported, which reads its settings then.

    Raises:
        UserError: the named server does not answer.
    """
    if api := os.environ.get("PREFECT_API_URL"):
        if not reachable(api):
            raise UserError(
                f"Prefect at {without_secrets(api)} does not answer: start it, or unset PREFECT_API_URL to use the "
                "embedded server."
            )
        yield None
        return
    server = PrefectServer()
    os.environ.update(server.environment)
    try:
        yield server
    finally:
        server.stop()


def is_up(url: str, timeout_s: float = 2.0) -> bool:
    """Whether an HTTP GET of ``url`` succeeds."""
    try:
        with urllib.request.urlopen(url, timeout=timeout_s) as response:  # noqa: S310 - a URL of this program's making
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def reachable(url: str, timeout_s: float = 10.0) -> bool:
    """Whether any HTTP server answers at ``url``, even with a refusal."""
    try:
        urllib.request.urlopen(url, timeout=timeout_s).close()  # noqa: S310 - the user's own server
    except urllib.error.HTTPError:
        return True
    except (OSError, ValueError):
        return False
    return True


def is_free(port: int) -> bool:
    """Whether no process listens on a loopback port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def free_port() -> int:
    """A loopback port on which no process listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
