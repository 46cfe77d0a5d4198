"""What is imported decides a result: every file of it, however it is imported."""

import subprocess
import sys
from pathlib import Path

import pytest

from reflux.components.core.contract import STAGES
from reflux.components.core.runtime import closure, lineage

LOADED = """
import importlib, sys
from pathlib import Path
importlib.import_module("reflux.components.{name}")
root = Path(sys.modules["reflux.components"].__file__).parent
files = (Path(each.__file__) for each in list(sys.modules.values()) if getattr(each, "__file__", None))
print(*(each.relative_to(root).as_posix() for each in files if each.is_relative_to(root)))
"""
MODULES = [
    *(f"stages.{stage}" for stage in STAGES),
    *(f"advice.{name}" for name in ("preflight", "teachers.features", "tune.candidates", "tune.trial")),
]
DECIDE_NOTHING = {"artifacts.py", "contract.py", "dvc_yaml.py", "errors.py", "project.py", "registry.py", "runtime"}


def decides(path: str) -> bool:
    part = Path(path).parts[1] if path.startswith("core/") else ""
    return part not in DECIDE_NOTHING and (part != "params" or Path(path).name in {"derived.py", "distill.py"})


@pytest.mark.parametrize("name", MODULES)
def test_all_that_python_loads_for_it_is_in_the_closure(name: str):
    program = f"{name}.__main__" if name.startswith("stages") or name == "advice.preflight" else name
    code = LOADED.format(name=program)
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    # Params import the methods for every stage, and only some of the stages read them.
    missing = {path for path in loaded if decides(path)} - {*closure.files(name)}
    assert missing <= {"core/params/__init__.py", "core/params/distill.py"}


@pytest.mark.parametrize("stage", STAGES)
def test_an_edit_of_any_file_of_a_closure_is_another_hash(stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    files = closure.files(f"stages.{stage}")
    for file in files:
        copy = tmp_path / file
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes((lineage.COMPONENTS / file).read_bytes())
    monkeypatch.setattr(lineage, "COMPONENTS", tmp_path)
    hashes = {lineage.code_sha256(f"stages.{stage}")}
    for file in files:
        with (tmp_path / file).open("a") as text:
            text.write("# edited\n")
        hashes.add(lineage.code_sha256(f"stages.{stage}"))
    assert len(hashes) == len(files) + 1


def test_what_several_modules_compute_is_decided_by_the_code_of_all():
    both = closure.files("stages.validate", "stages.control")
    assert {*both} == {*closure.files("stages.validate"), *closure.files("stages.control")}
    assert list(both) == sorted(both)
