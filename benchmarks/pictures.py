"""Take the README's pictures of the boards and of the registered model, in a real browser, from a running MLflow.

    .venv/bin/reflux ui                                    # in a project with some retrains
    .venv/bin/python -m benchmarks.pictures http://127.0.0.1:5000

Debian's chromium must be installed.
"""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from mlflow import MlflowClient
from playwright.sync_api import Page, sync_playwright

from benchmarks.results import ROOT
from components.core import params
from components.registry import links
from flows import boards

PICTURES = ROOT / ".github/pictures"
_SETTLED_MS = 5000  # charts are drawn one after the other
# What MLflow's page opens by itself on a first visit.
NO_GREETING = """if (location.protocol.startsWith('http')) {
    localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true');
    localStorage.setItem('mlflow.workflowType_v1', '"machine_learning"');
}"""


def take(page: Page, address: str, height: int, path: Path) -> None:
    """One picture of a page, when its charts are drawn."""
    page.set_viewport_size({"width": 1400, "height": height})
    page.goto("about:blank")  # states leak between addresses that differ behind the #
    page.goto(address)
    page.wait_for_timeout(_SETTLED_MS)
    page.screenshot(path=path)
    print(path.relative_to(ROOT))


def main() -> None:
    """Take all of them."""
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("address", help="of MLflow's page, such as http://127.0.0.1:5000")
    asked = ask.parse_args()
    browser = shutil.which("chromium")
    if browser is None:
        sys.exit("Error: there is no chromium on the PATH: install it (apt install chromium).")
    found = params.load()
    client = MlflowClient(asked.address)
    experiment = client.get_experiment_by_name(found.project.name)
    if experiment is None:
        sys.exit(f"Error: {asked.address} has no experiment {found.project.name}: `reflux run` makes one.")
    champion = client.get_model_version_by_alias(found.registry.model_name, "champion").version
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as profile:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
        context = playwright.chromium.launch_persistent_context(profile, executable_path=browser, args=arguments)
        context.add_init_script(NO_GREETING)
        page = context.new_page()
        for board, link, _ in boards.links(str(experiment.experiment_id), asked.address):
            slug = board.lower().replace(" ", "-")
            take(page, link, 1500 if board == boards.HEALTH.name else 1150, PICTURES / f"board-{slug}.png")
        version = f"{asked.address}/{links.version(found.registry.model_name, int(champion))}"
        take(page, version, 1000, PICTURES / "version.png")
        context.close()


if __name__ == "__main__":
    main()
