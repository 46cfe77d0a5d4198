"""Take the README's pictures in a real browser: boards and a version from a running MLflow, the card from this project.

    .venv/bin/reflux ui                                    # in a project with some retrains
    .venv/bin/python -m benchmarks.pictures http://127.0.0.1:5000

Debian's chromium must be installed.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from mlflow import MlflowClient
from playwright.sync_api import Page

from benchmarks.harness import browser
from benchmarks.harness.results import PICTURES, ROOT
from reflux.components.core.artifacts import ARTIFACTS
from reflux.components.core.params.file import load_params
from reflux.components.observe.boards import declared, keep
from reflux.components.registry.text import urls

CARD = ARTIFACTS / "evaluate/model-card.html"
_SETTLED_MS = 5000  # charts are drawn one after the other


def take(page: Page, address: str, height: int, path: Path) -> None:
    """Take a picture of a page once its charts are drawn."""
    page.set_viewport_size({"width": 1400, "height": height})
    page.goto("about:blank")  # states leak between addresses that differ behind the #
    page.goto(address)
    page.wait_for_timeout(_SETTLED_MS)
    page.screenshot(path=path)
    print(path.relative_to(ROOT))


def main() -> None:
    """Take all pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address", help="of MLflow's page, such as http://127.0.0.1:5000")
    address = parser.parse_args().address
    params = load_params()
    client = MlflowClient(address)
    experiment = client.get_experiment_by_name(params.project.name)
    if experiment is None:
        sys.exit(f"Error: {address} has no experiment {params.project.name}: `reflux run` makes one.")
    champion = client.get_model_version_by_alias(params.registry.model_name, "champion").version
    with tempfile.TemporaryDirectory() as profile, browser.opened(Path(profile)) as page:
        for board, link, _ in keep.links(str(experiment.experiment_id), address):
            slug = board.lower().replace(" ", "-")
            take(page, link, 1500 if board == declared.HEALTH.name else 1150, PICTURES / f"board-{slug}.png")
        version = f"{address}/{urls.version(params.registry.model_name, int(champion))}"
        take(page, version, 1000, PICTURES / "version.png")
        take(page, CARD.resolve().as_uri(), 1500, PICTURES / "card.png")


if __name__ == "__main__":
    main()
