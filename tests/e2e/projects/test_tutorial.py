"""The tutorial, done as it says: its commands from top to bottom, on drawn pictures and with a budget of seconds."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.e2e.command import environment
from tests.workspaces import PACKAGE, ROOT, TINY, picture

pytestmark = pytest.mark.long

PAGE = (ROOT / "infra/docs/pages/tutorial.md").read_text(encoding="utf-8")
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]
BUDGET = [one for one in TINY.split() if not one.startswith(("ingest.", "project.", "registry.model_name"))]
LEFT_OUT = (
    "python3 -m venv",
    "pip install",
    "reflux ui",
)  # test_package.py installs; a server never ends


def draw(folder: Path, count: int, seed: int) -> None:
    """Draw flowers: as many of each class, and some that nobody has sorted."""
    rng = np.random.default_rng(seed)
    for name, kind in {"rose": "flat", "tulip": "wave", "daisy": "check"}.items():
        for target in (name, "unlabeled"):
            (folder / target).mkdir(parents=True, exist_ok=True)
            for index in range(count):
                picture(kind, rng).resize((32, 32)).save(folder / target / f"{name}-{index}.png")


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> dict[str, str]:
    """What each command of the tutorial printed, in their order."""
    base = folder = tmp_path_factory.mktemp("tutorial")
    draw(base / "pictures", 30, seed=0)
    draw(base / "new-pictures", 2, seed=1)
    reflux = f'reflux() {{ "{sys.executable}" -m reflux.flows.cli "$@"; }}\n'
    printed: dict[str, str] = {}
    for command in COMMANDS:
        if command.startswith(LEFT_OUT):
            continue
        if command.startswith("cd "):
            folder /= command.removeprefix("cd ")
            continue
        script = reflux + command.replace("~/", f"{base}/")
        if command == "reflux run":
            script += "".join(f" -S {one}" for one in BUDGET)
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=folder,
            env=environment(base) | {"PYTHONPATH": str(ROOT / PACKAGE)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        printed[command] = done.stdout
    printed["classes.csv"] = (folder / "classes.csv").read_text(encoding="utf-8")
    return printed


def test_a_reader_of_the_tutorial_gets_from_pictures_to_a_champion_that_classifies(done):
    run = done["reflux run"]
    assert "flowers-student version 1 is the new @champion" in run
    assert "Distillation" in run and "control" in run
    files = dict(line.split(",")[:2] for line in done["classes.csv"].splitlines()[1:])
    sorted_ones = {Path(name).stem.split("-")[0]: answer for name, answer in files.items() if "unlabeled" not in name}
    assert sorted_ones == {"rose": "rose", "tulip": "tulip", "daisy": "daisy"}


def test_the_plan_says_what_the_run_computes(done):
    assert "distill" in done["reflux plan"]
    assert "flowers: 180 images" in done["reflux new flowers --from ~/pictures"]
