"""The rules of the house that import-linter can't see: one word, one place."""

import ast
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from components.core.contract import STAGES
from components.core.params.sections import Params

ROOT = Path(__file__).parents[2]
DVC = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]

# What every stage runs on, and what changes no result: how params are read, how progress and journals are kept.
PLUMBING = {"artifacts", "contract", "errors", "params/file", "params/section", "params/sections"} | {
    f"runtime/{file.stem}" for file in (ROOT / "components/core/runtime").glob("*.py") if file.stem != "world"
}


def imported_core_modules(folder: Path) -> set[str]:
    """The modules of ``components.core`` that a package imports, directly or through core itself."""
    core = ROOT / "components/core"
    waiting, seen = list(folder.rglob("*.py")), set()
    while waiting:
        for node in ast.walk(ast.parse(waiting.pop().read_text(encoding="utf-8"))):
            if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith("components.core"):
                continue
            room = "/".join(str(node.module).split(".")[2:])
            names = {room} | {"/".join(filter(None, [room, alias.name])) for alias in node.names}
            for name in names - seen - PLUMBING:
                if (core / f"{name}.py").is_file():
                    seen.add(name)
                    waiting.append(core / f"{name}.py")
    return seen


def test_dvc_knows_the_stages_of_the_design_in_their_order():
    assert list(DVC) == list(STAGES)


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_is_the_same_word_everywhere(stage: str):
    assert DVC[stage]["cmd"] == f"python -m components.{stage}"
    assert (ROOT / "components" / stage / "__main__.py").is_file()
    outs = [o if isinstance(o, str) else next(iter(o)) for o in DVC[stage]["outs"] + DVC[stage].get("metrics", [])]
    assert all(out.startswith(f"artifacts/{stage}/") for out in outs)
    assert f"artifacts/{stage}/run.json" in outs


@pytest.mark.parametrize("stage", STAGES)
def test_a_change_of_code_reruns_the_stages_that_run_it(stage: str):
    deps = set(DVC[stage]["deps"])
    assert f"components/{stage}" in deps
    listed = {
        dep.removeprefix("components/core/").removesuffix(".py") for dep in deps if dep.startswith("components/core/")
    }
    assert imported_core_modules(ROOT / "components" / stage) == listed


def test_params_that_stages_depend_on_exist_and_hardware_is_none_of_them():
    fields = {field.alias or name for name, field in Params.model_fields.items()}
    used = {param.split(".")[0] for stage in DVC.values() for param in stage.get("params", [])}
    assert used <= fields
    assert "run" not in used


def test_only_evaluation_and_the_datas_checks_can_read_the_test_split():
    readers = {stage for stage, entry in DVC.items() if "artifacts/ingest/shards/test" in entry["deps"]}
    assert readers == {"evaluate"}
    whole_table = {stage for stage, entry in DVC.items() if "artifacts/ingest/manifest.parquet" in entry["deps"]}
    assert whole_table == {"validate", "evaluate"}
