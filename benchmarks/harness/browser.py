"""A page of Debian's chromium, without a window and without requests of its own: for benchmarks, pictures and tests."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_ARGUMENTS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
)
# MLflow's page opens an assistant by itself on a first visit.
_NO_GREETING = """if (location.protocol.startsWith('http')) {
    localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true');
    localStorage.setItem('mlflow.workflowType_v1', '"machine_learning"');
}"""


def installed() -> str | None:
    """The path of the browser, or None."""
    return next(filter(None, map(shutil.which, _NAMES)), None)


@contextmanager
def opened(profile: Path, width: int = 1600, height: int = 2400) -> Iterator[Page]:
    """Open a page of a browser whose profile is in ``profile``.

    Raises:
        SystemExit: no browser is installed.
    """
    browser = installed()
    if browser is None:
        raise SystemExit("Error: there is no chromium on the PATH: install it (apt install chromium).")
    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            profile,
            executable_path=browser,
            headless=True,
            args=_ARGUMENTS,
            viewport={"width": width, "height": height},
        )
        context.add_init_script(_NO_GREETING)
        yield context.new_page()
        context.close()
