"""An edit of code outdates the results that it decides, for DVC and for all that is kept between runs."""

import contextlib
import re
import shutil
import tomllib
from pathlib import Path
from typing import get_args

import pytest
from dvc.repo import Repo
from ruamel.yaml import YAML

from reflux.components.core.contract import (
    FIGURES,
    FILES,
    FORMATS,
    STAGES,
    TRAINING,
    alternatives,
    kind_of,
    made,
)
from reflux.components.core.export.network import MODULES
from reflux.components.core.params.file import load_params
from reflux.components.core.params.registry import Gates
from reflux.components.core.params.section import Ships
from reflux.components.core.runtime import installed, lineage
from reflux.components.core.runtime.lineage import code_sha256

ROOT = Path(__file__).parents[3]
DVC = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
DVC.pop("installed")  # writes that file, and has no result of its own

TRAIN = {"pretrain", "finetune", "distill", "control"}
NETWORKS = {*TRAIN, "label", "compress", "evaluate"}
OUTDATED = {  # the stages, by the file that is edited
    "core/data/shards.py": set(STAGES),
    "core/params/derived.py": set(STAGES),
    "core/params/distill.py": {"label", "distill", "evaluate"},
    "modalities/image/models/pixel_model.py": NETWORKS,
    "modalities/image/views/augment.py": {*TRAIN, "label", "evaluate"},
    "modalities/image/views/mixing.py": {*TRAIN, "label"},
    "core/training/loop.py": TRAIN,
    "core/inference.py": {*TRAIN, "evaluate"},
    "core/student.py": {"pretrain", "distill", "control"},
    "core/teacher/soft_labels.py": {"label", "distill"},
    "modalities/image/quantize.py": {"compress", "evaluate"},
    "core/export/litert_converter.py": {"compress", "evaluate"},
    "core/export/latency.py": {"evaluate"},
    "core/significance.py": {"compress", "evaluate"},
    "core/shift.py": {"validate"},
    "stages/distill/losses/labels.py": {"distill"},
    "stages/ingest/formats/labels.py": {"ingest"},
    "stages/evaluate/card/card.md.j2": {"evaluate"},
}
NOTHING = [
    *("core/runtime/journal.py", "core/params/sections.py", "core/artifacts.py"),
    *("observe/boards/declared.py", "registry/text/markdown.py", "observe/monitor/report.py"),
]


@pytest.mark.parametrize("stage", STAGES)
def test_dvc_keys_each_stage_by_what_is_installed(stage: str):
    keys = [key for entry in DVC[stage]["params"] if isinstance(entry, dict) for key in entry[str(installed.FILE)]]
    assert keys == [stage]


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project in which DVC finds every stage up to date."""
    folder = tmp_path_factory.mktemp("project")
    shutil.copytree(ROOT / "components", folder / "components", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / name, folder / name)
    source = YAML(typ="safe").load((ROOT / "params.yaml").read_text(encoding="utf-8"))["ingest"]["source"]
    for stage in DVC.values():
        for out in (source, *stage["outs"], *stage.get("metrics", [])):
            (folder / out).parent.mkdir(parents=True, exist_ok=True)
            (folder / out).write_text(out, encoding="utf-8")
    with contextlib.chdir(folder), Repo.init(no_scm=True) as repo:
        installed.record(load_params())
        repo.commit(force=True)
        assert set(repo.status()) == {"installed"}, "it always runs"
    return folder


def outdated(copy: Path, file: Path, text: str) -> tuple[set[str], set[str]]:
    """The stages that DVC runs again, and those whose checkpoints and soft labels are made anew, after an edit."""
    before = file.read_text(encoding="utf-8")
    with contextlib.chdir(copy), pytest.MonkeyPatch.context() as patch, Repo() as repo:
        patch.setattr(lineage, "COMPONENTS", copy / "components")
        keys = {stage: code_sha256(f"stages.{stage}") for stage in STAGES}
        file.write_text(text, encoding="utf-8")
        try:
            if not file.samefile(installed.FILE):
                installed.record(load_params())
            changed = set(repo.status()) - {"installed"}
            return changed, {stage for stage in STAGES if code_sha256(f"stages.{stage}") != keys[stage]}
        finally:
            file.write_text(before, encoding="utf-8")
            if not file.samefile(installed.FILE):
                installed.record(load_params())


@pytest.mark.parametrize("path", OUTDATED)
def test_an_edit_outdates_exactly_the_stages_whose_code_imports_the_file(copy: Path, path: str):
    file = copy / "components" / path
    text = file.read_text(encoding="utf-8") + "# edited\n"
    assert outdated(copy, file, text) == (OUTDATED[path], OUTDATED[path])


@pytest.mark.parametrize("path", NOTHING)
def test_an_edit_of_what_decides_no_result_outdates_nothing(copy: Path, path: str):
    file = copy / "components" / path
    assert outdated(copy, file, file.read_text(encoding="utf-8") + "# edited\n") == (set(), set())


def test_another_default_outdates_the_stages_that_it_stands_in_for(copy: Path):
    file = copy / installed.FILE
    text = file.read_text(encoding="utf-8")
    other, count = re.subn(r'("student\.augment\.mixup"): 0.0', r"\1: 0.5", text)
    assert count == 3
    assert outdated(copy, file, other) == ({"label", "distill", "control"}, set())


@pytest.mark.parametrize("package", ["torch", "torchvision", "timm", "onnxruntime"])
def test_another_release_of_a_package_outdates_exactly_the_stages_of_the_table(copy: Path, package: str):
    text = (copy / installed.FILE).read_text(encoding="utf-8")
    expected = {name for name, stage in STAGES.items() if package in stage.packages}
    assert expected == ({"compress", "evaluate"} if package == "onnxruntime" else {*TRAINING, "compress", "evaluate"})
    other = text.replace(f'"{package}": "', f'"{package}": "0.')
    assert outdated(copy, copy / installed.FILE, other) == (expected, set())


def test_every_gate_has_a_figure_with_its_name_for_people():
    assert set(Gates.model_fields) == set(FIGURES)


def test_the_tables_of_formats_are_one():
    assert set(MODULES) == set(FORMATS)
    assert [kind_of(name) for name in get_args(Ships)] == [kind for kind in FILES if kind != "pt2"]
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    for file_format in FORMATS.values():
        if file_format.extra:
            assert any(each.startswith(file_format.runtime) for each in extras[file_format.extra])


def test_files_of_other_runtimes_are_made_where_they_are_named():
    assert list(made("auto")) == list(made("onnx-int8")) == ["onnx", "onnx_int8", "pt2"]
    assert list(made("executorch-int8")) == [*made("auto"), "executorch_int8"]
    assert {file.format.runtime for file in made("auto").values()} == {"onnxruntime", "torch"}


def test_what_could_have_shipped_is_named_by_how_it_differs_from_what_does():
    metrics = {"shipped": {"onnx": {}, "onnx_int8": {}, "pt2": {}}, "ships": {"kind": "onnx_int8"}}
    assert alternatives(metrics) == {"student, fp32": "onnx"}
    metrics = {"shipped": {**metrics["shipped"], "executorch": {}}, "ships": {"kind": "executorch"}}
    assert alternatives(metrics) == {"student, ONNX, fp32": "onnx", "student, ONNX, int8": "onnx_int8"}
