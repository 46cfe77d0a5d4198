"""What is installed by hash: all of it, and no other file."""

import re
import shlex
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from infra.locks import EXTRAS, LOCKED, TORCHS

ROOT = Path(__file__).parents[3]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
AGAIN = "run `make locks` and commit infra/locked"


def lines(path: Path) -> list[str]:
    text = path.read_text(encoding="utf-8").replace("\\\n", " ")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def pinned(name: str) -> dict[str, str]:
    """The releases in a file of ``infra/locked``."""
    found = [re.match(r"([\w.-]+)==([\w.]+)", line) for line in lines(LOCKED / f"{name}.txt")]
    return {canonicalize_name(match[1]): match[2] for match in found if match}


def needed(extras: tuple[str, ...]) -> set[str]:
    """The packages that this Python has for the project and its extras, by what each says that it needs."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    todo = [Requirement(text) for text in project["dependencies"]]
    todo += [Requirement(text) for extra in extras for text in project["optional-dependencies"][extra]]
    seen: set[tuple[str, str]] = set()
    while todo:
        wanted = todo.pop()
        name = canonicalize_name(wanted.name)
        for extra in {"", *wanted.extras} - {extra for known, extra in seen if known == name}:
            seen.add((name, extra))
            if name == "reflux":
                todo += [Requirement(text) for text in project["optional-dependencies"].get(extra, ())]
                continue
            try:
                texts = requires(name) or []
            except PackageNotFoundError:
                continue
            deeper = [Requirement(text) for text in texts]
            todo += [each for each in deeper if not each.marker or each.marker.evaluate({"extra": extra})]
    return {name for name, _ in seen} - {"reflux"}


def test_each_constraint_is_one_release():
    assert not [line for line in lines(ROOT / "constraints.txt") if not re.fullmatch(r"[\w.-]+==[\w.]+", line)]


@pytest.mark.parametrize("name", EXTRAS)
def test_what_is_installed_has_a_hash_and_is_the_release_that_was_tested(name):
    tested = dict(line.split("==") for line in lines(ROOT / "constraints.txt"))
    tested = {canonicalize_name(key): value for key, value in tested.items()}
    hashed = pinned("hashes")
    found = pinned(name)
    assert {each: found[each] for each in found if each in tested} == {
        each: tested[each] for each in found if each in tested
    }, AGAIN
    assert {each: hashed.get(each) for each in found} == found, AGAIN
    assert all("--hash=sha256:" in line for line in lines(LOCKED / "hashes.txt"))
    torchs = {each for each in found if TORCHS.match(f"{each}==")}
    assert ("torch" in torchs) is (name == "image")
    assert not torchs or name == "image"
    missing = {each for each in needed(EXTRAS[name]) if not TORCHS.match(f"{each}==")} - found.keys()
    assert not missing, AGAIN


def test_a_file_that_is_not_the_one_of_the_hash_is_not_installed(tmp_path, monkeypatch):
    """By pip as make calls it: the hashes are constraints, and a release without one is refused."""
    monkeypatch.chdir(tmp_path)
    wheel = tmp_path / "tiny_package-1.0-py3-none-any.whl"
    facts = "tiny_package-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tiny_package.py", "")
        archive.writestr(f"{facts}/METADATA", "Metadata-Version: 2.1\nName: tiny-package\nVersion: 1.0\n")
        archive.writestr(f"{facts}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{facts}/RECORD", "")
    variables = dict(re.findall(r"^([A-Z]+) := (.*)$", MAKEFILE, re.MULTILINE))
    options = variables["LOCKED"].removeprefix("$(INSTALL)").replace("infra/locked/hashes.txt", "hashes.txt")
    pip = [sys.executable, "-m", "pip", "install", "--no-index", "--find-links=.", "--target=there"]
    command = [*pip, *shlex.split(options), "-r", "names.txt"]
    Path("names.txt").write_text("tiny-package==1.0\n")
    right = subprocess.run(["sha256sum", wheel], capture_output=True, text=True, check=True).stdout.split()[0]
    outcomes = {}
    for hashes in (f" --hash=sha256:{'0' * 64}", "", f" --hash=sha256:{right}"):
        Path("hashes.txt").write_text(f"tiny-package==1.0{hashes}\n")
        outcomes[hashes[-64:]] = subprocess.run(command, capture_output=True, check=False).returncode
    assert outcomes == {"0" * 64: 1, "": 1, right: 0}


def test_make_and_the_image_install_by_hash():
    for stamp in ("run", "dev"):
        recipe = re.search(rf"^\$\(VENV\)/\.{stamp}:.*\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE)
        assert recipe
        assert recipe[1].splitlines()[0].strip() == f"$(LOCKED) -r infra/locked/{stamp}.txt"
    image = (ROOT / "infra/compose/Dockerfile").read_text(encoding="utf-8").replace("\\\n", "")
    installs = re.findall(r"pip install [^&\n]*", image)
    assert [text for text in installs if "--require-hashes" not in text] == [installs[-1]]
    assert installs[-1].split()[2:] == ["--no-cache-dir", "--no-deps", "--no-build-isolation", "."]
