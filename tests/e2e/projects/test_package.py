"""The wheel in an environment of its own: a project is made and trained, and a second one next to it."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

from benchmarks.harness.checkout import copy_checkout
from reflux.components.core.artifacts import read_json
from tests.workspaces import PACKAGE, ROOT, TINY, git, picture

pytestmark = pytest.mark.long

# But for what names the data, which comes with the project.
RECIPE = [
    each
    for each in TINY.split()
    if not each.startswith(("ingest.source", "project.", "registry.model_name", "ingest.image_size"))
]


def call(folder: Path, *command: str) -> "subprocess.CompletedProcess[str]":
    """Run a command that knows nothing of this process's environment."""
    kept = {name: value for name, value in os.environ.items() if name in ("HOME", "LANG", "OMP_NUM_THREADS", "PATH")}
    settings = kept | {"GIT_CEILING_DIRECTORIES": str(folder.parent)}
    return subprocess.run(command, cwd=folder, env=settings, capture_output=True, text=True, check=False)


def done(folder: Path, *command: str) -> str:
    result = call(folder, *command)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def build(folder: Path) -> Path:
    """Build the wheel of the checkout ``reflux`` in a folder."""
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", "."]
    done(folder, *pip, "./reflux")
    return next(folder.glob("reflux-*.whl"))


def install(home: Path, wheel: Path) -> None:
    """Install a wheel into the environment of ``home``, in place of the one that is there."""
    site = next((home / "venv/lib").glob("python*/site-packages"))
    for path in site.glob("reflux*"):
        shutil.rmtree(path)
    pip = [sys.executable, "-m", "pip", "--python", str(home / "venv/bin/python"), "install", "--quiet", "--no-deps"]
    done(home, *pip, "--no-index", "--ignore-installed", str(wheel))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built in a copy: setuptools leaves files where it builds."""
    folder = tmp_path_factory.mktemp("source")
    copy_checkout(folder)
    return build(folder)


@pytest.fixture(scope="module")
def home(wheel, tmp_path_factory) -> Path:
    """A folder with an environment in which the wheel is installed, and this one's packages but for this project."""
    folder = tmp_path_factory.mktemp("home")
    venv.create(folder / "venv", with_pip=False, symlinks=True)
    site = next((folder / "venv/lib").glob("python*/site-packages"))
    # A line of a .pth file is a folder to import from; the .pth files there, such as this project's, don't count.
    (site / "packages.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    install(folder, wheel)
    return folder


@pytest.fixture(scope="module")
def reflux(home) -> str:
    return str(home / "venv/bin/reflux")


def test_the_wheel_has_one_name_and_the_code_itself(home):
    python = str(home / "venv/bin/python")
    assert done(home, python, "-c", "import reflux; print(reflux.__file__)").startswith(str(home))
    for name in ("components", "flows"):
        assert f"No module named '{name}'" in call(home, python, "-c", f"import {name}").stderr
    package = next((home / "venv/lib").glob("python*/site-packages/reflux"))
    assert not any(path.is_symlink() for path in package.rglob("*"))
    kept = ("*.py", "*.j2", "*.yaml")
    ours = {
        str(p.relative_to(ROOT / PACKAGE))
        for part in ("components", "flows")
        for pattern in kept
        for p in (ROOT / PACKAGE / "reflux" / part).rglob(pattern)
    }
    theirs = {
        str(p.relative_to(package.parent))
        for part in ("components", "flows")
        for pattern in kept
        for p in (package / part).rglob(pattern)
    }
    assert theirs == ours


def test_help_imports_no_library_that_is_slow_to_import(home, reflux):
    imported = call(home, str(home / "venv/bin/python"), "-X", "importtime", reflux, "-h").stderr
    assert "typer" in imported
    for name in ("torch", "mlflow", "prefect", "dvc", "pandas", "numpy", "pydantic"):
        assert f" {name}\n" not in imported


def test_a_project_of_its_own_runs_from_the_installed_package(home, reflux):
    done(home, reflux, "new", "demo")
    demo = home / "demo"
    assignments = [word for each in [*RECIPE, "registry.gates.accuracy.min=0.1"] for word in ("-S", each)]
    printed = done(demo, reflux, "run", *assignments)
    assert "demo-student version 1" in printed
    decision = read_json(demo / "artifacts/promote/decision.json")
    assert decision["reasons"]
    assert {path.name for path in demo.iterdir()}.isdisjoint({"components", "flows", "reflux"})
    assert "nothing was trained" in done(demo, reflux, "run")


def test_a_second_project_with_its_own_data_shares_the_installation(home, reflux):
    rng = np.random.default_rng(0)
    for kind in ("flat", "wave"):
        folder = home / "pictures" / kind
        folder.mkdir(parents=True)
        for index in range(60):
            picture(kind, rng).save(folder / f"{index}.png")
    printed = done(home, reflux, "new", "shapes", "--from", "pictures")
    assert "data/shapes: 120 images" in printed
    shapes = home / "shapes"
    assert git(shapes, "status", "--porcelain") == ""
    assert "data/shapes.dvc" in git(shapes, "ls-files")
    assert not (shapes / "data/fashion-mnist").exists()
    assert "computed it was not computed before" in " ".join(done(shapes, reflux, "plan").split())


def test_a_newer_release_upgrades_a_project_and_computes_again_what_its_code_decides(home, reflux, wheel, tmp_path):
    done(home, reflux, "new", "older")
    older, python = home / "older", str(home / "venv/bin/python")
    path = f"PATH={home / 'venv/bin'}:{os.environ['PATH']}"
    done(older, "env", path, python, "-m", "dvc", "repro", "--quiet", "validate")

    copy_checkout(tmp_path)
    for name, before, after in (
        ("pyproject.toml", f'version = "{version("reflux")}"', 'version = "99.0"'),
        ("dvc.yaml", "params: [validate, ", "params: [seed, validate, "),
        ("components/stages/validate/suite.py", '"""\n\n', '"""\n\n# Newer.\n'),
    ):
        file = tmp_path / "reflux" / name
        text = file.read_text(encoding="utf-8")
        assert before in text
        file.write_text(text.replace(before, after, 1), encoding="utf-8")
    install(home, build(tmp_path))

    printed = done(older, reflux, "upgrade")
    assert "  stages replaced by those of this release: validate\n" in printed
    assert f"  asks for Reflux 99.0, not {version('reflux')}\n" in printed
    assert "  validate computed: seed: unset → 0; code in components/stages/validate\n" in printed
    assert "  ingest computed" not in printed
    assert git(older, "status", "--porcelain", "--untracked-files=no").split() == [
        "M",
        "dvc.yaml",
        "M",
        "pyproject.toml",
    ]

    install(home, wheel)
    refused = call(older, reflux, "plan")
    assert refused.returncode == 2
    assert refused.stderr == (
        f"Error: This project is of Reflux 99.0, and {version('reflux')} is installed: install the wheel of the "
        "release that pyproject.toml names.\n"
    )
