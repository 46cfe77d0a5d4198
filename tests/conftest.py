import os
import shutil
import signal
import sqlite3
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import settings

# Set before torch is imported: threads that wait for each other make small tests slow on a busy machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A run in the background ignores Ctrl-C, and would hand that down to the processes that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)

# A slow or shared machine is no failure of the code.
settings.register_profile("reflux", deadline=None)
settings.load_profile("reflux")


def pytest_itemcollected(item: pytest.Item) -> None:
    """A long test is a slow one too, so that ``-m "not slow"`` leaves it out; both may take longer before they hang."""
    long = item.get_closest_marker("long")
    if long:
        item.add_marker("slow")
    if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
        item.add_marker(pytest.mark.timeout(3600 if long else 1200))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with many long tests come first, so that no process is left alone with one at the end."""
    long = Counter(item.path for item in items if item.get_closest_marker("long"))
    items.sort(key=lambda item: -long[item.path])


@pytest.fixture(scope="session")
def make_once(tmp_path_factory) -> Callable[[str, Callable[[Path], object]], Path]:
    """Makes a folder that all processes which run tests share: the first that asks for it makes it, the others wait."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def make_once(name: str, make: Callable[[Path], object]) -> Path:
        folder, done = shared / name, shared / f"{name}.done"
        with FileLock(shared / f"{name}.lock"):
            if not done.exists():
                shutil.rmtree(folder, ignore_errors=True)  # of one that failed
                make(folder)
                done.touch()
        return folder

    return make_once


@pytest.fixture(scope="session")
def converters_home(make_once) -> Path:
    """A folder for the packages of converters: installing them takes a minute."""
    return make_once("converters", Path.mkdir)


@pytest.fixture(scope="session")
def mlflow_template(make_once) -> Path:
    """An MLflow database whose tables exist: making them takes seconds, copying them nothing."""

    def make(folder: Path) -> None:
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        folder.mkdir()
        SqlAlchemyStore(f"sqlite:///{folder}/mlflow.db", f"{folder}/artifacts")

    return make_once("mlflow-template", make) / "mlflow.db"


@pytest.fixture(scope="session")
def prefect_template(make_once) -> Path:
    """A Prefect database whose tables exist: making them takes two thirds of a server's start."""

    def make(folder: Path) -> None:
        from reflux.flows.local.prefect_server import PrefectServer

        server = PrefectServer(folder / "home")
        try:
            server.wait()
        finally:
            server.stop()
        with closing(sqlite3.connect(folder / "home/prefect.db")) as database:
            database.execute("VACUUM INTO ?", [f"{folder}/prefect.db"])

    return make_once("prefect-template", make) / "prefect.db"


@pytest.fixture(scope="session")
def prefect_home(prefect_template) -> Callable[[Path], Path]:
    """Makes the home of a Prefect server, which starts in a third of the time."""

    def make(folder: Path) -> Path:
        folder.mkdir(parents=True)
        shutil.copy(prefect_template, folder)
        return folder

    return make


@pytest.fixture(scope="session")
def tiny_project(mlflow_template, prefect_home) -> Callable[[Path], Path]:
    """Makes a tiny project in a folder, where MLflow and Prefect find their tables."""

    def make(folder: Path) -> Path:
        from tests.workspaces import make_tiny_project

        make_tiny_project(folder)
        shutil.copy(mlflow_template, folder / "mlflow.db")
        prefect_home(folder / ".reflux/prefect")
        return folder

    return make


@pytest.fixture(scope="session")
def prefect_api(tmp_path_factory, prefect_home):
    """The address of a real Prefect server, which this process speaks to as well."""
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from reflux.flows.local.prefect_server import PrefectServer

    server = PrefectServer(prefect_home(tmp_path_factory.mktemp("server") / "prefect"))
    try:
        server.wait()
        with temporary_settings({PREFECT_API_URL: server.api}):
            yield server.api
    finally:
        server.stop()


@pytest.fixture
def mlflow_home(tmp_path, monkeypatch, mlflow_template) -> Path:
    """An empty working folder with its own MLflow database."""
    shutil.copy(mlflow_template, tmp_path / "mlflow.db")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    return tmp_path


@pytest.fixture
def browser_page(tmp_path):
    """A page of a real browser; the addresses that it requests are in its ``requested``."""
    from benchmarks.harness import browser

    if browser.installed() is None:
        pytest.skip("NO BROWSER: install Debian's chromium to see whether the boards render")
    with browser.opened(tmp_path / "profile") as page:
        page.requested = []
        page.on("request", lambda request: page.requested.append(request.url))
        yield page


@pytest.fixture
def call_reflux(monkeypatch, capsys) -> Callable[..., tuple[int, str, str]]:
    """Calls the command as its entry point does; returns its exit code, stdout and stderr."""
    from reflux.flows import cli

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["reflux", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        captured = capsys.readouterr()
        return ended.value.code or 0, captured.out, captured.err

    return call
