"""The rules of the house that import-linter can't see: one word, one place."""

import ast
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from components.core.params import Params

ROOT = Path(__file__).parents[2]
DVC = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
ORDER = ["ingest", "validate", "pretrain", "finetune", "label", "distill", "control", "compress", "evaluate"]

# What every stage runs on, and what changes no result: how params are read, how progress and journals are kept.
PLUMBING = {
    "artifacts",
    "checkpoint",
    "device",
    "errors",
    "history",
    "journal",
    "launch",
    "lineage",
    "params",
    "progress",
    "section",
    "stage",
    "tracking",
}


def imported_core_modules(folder: Path) -> set[str]:
    """The modules of ``components.core`` that a package imports, directly or through core itself."""
    waiting, seen = list(folder.rglob("*.py")), set()
    while waiting:
        for node in ast.walk(ast.parse(waiting.pop().read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.ImportFrom) and node.module == "components.core":
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("components.core."):
                names = [str(node.module).split(".")[2]]
            for name in set(names) - seen - PLUMBING:
                seen.add(name)
                waiting.append(ROOT / f"components/core/{name}.py")
    return seen


def test_dvc_knows_the_stages_of_the_design_in_their_order():
    assert list(DVC) == ORDER


@pytest.mark.parametrize("stage", ORDER)
def test_a_stage_is_the_same_word_everywhere(stage: str):
    assert DVC[stage]["cmd"] == f"python -m components.{stage}"
    assert (ROOT / "components" / stage / "__main__.py").is_file()
    outs = [o if isinstance(o, str) else next(iter(o)) for o in DVC[stage]["outs"] + DVC[stage].get("metrics", [])]
    assert all(out.startswith(f"artifacts/{stage}/") for out in outs)
    assert f"artifacts/{stage}/run.json" in outs


@pytest.mark.parametrize("stage", ORDER)
def test_a_change_of_code_reruns_the_stages_that_run_it(stage: str):
    deps = set(DVC[stage]["deps"])
    assert f"components/{stage}" in deps
    listed = {Path(dep).stem for dep in deps if dep.startswith("components/core/")}
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
