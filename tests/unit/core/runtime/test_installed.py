import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from reflux.components.core.artifacts import read_json
from reflux.components.core.contract import STAGES, TRAINING
from reflux.components.core.errors import UserError
from reflux.components.core.params.augment import StudentAugment
from reflux.components.core.params.file import check_overrides, load_params
from reflux.components.core.params.sections import Params
from reflux.components.core.runtime import installed, lineage
from tests.workspaces import ROOT

LOCK = """
schema: '2.0'
stages:
  finetune:
    params:
      artifacts/installed.json:
        finetune:
          packages: {{torch: {torch}, torchvision: {torchvision}, timm: 0.9.1}}
      params.yaml: {{seed: 0}}
  ingest:
    params:
      params.yaml: {{seed: 0}}
"""


SHIPPED = load_params(ROOT / "params.yaml")
KEEPING = check_overrides(["run.retrain_on_upgrade=false"], ROOT / "params.yaml")


@pytest.fixture
def lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A lock file whose teacher was trained with an older release of timm."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    now = installed.releases()["finetune"]
    Path("dvc.lock").write_text(LOCK.format(**now))
    return Path("dvc.lock")


def written() -> dict[str, Any]:
    """The packages that were written, stage by stage."""
    return {stage: each["packages"] for stage, each in read_json(installed.FILE).items() if "packages" in each}


def test_a_gpus_build_and_a_cpus_share_results_of_one_release():
    build = installed.builds("finetune")["torch"]
    assert build == version("torch")
    assert installed.releases()["finetune"]["torch"] == build.split("+")[0]


def test_after_an_upgrade_dvc_is_given_the_installed_releases_and_the_run_says_so(lock: Path):
    sentence = installed.record(SHIPPED, lock=lock)
    assert written() == installed.releases()
    now = version("timm")
    assert sentence == f"timm 0.9.1 is now {now}: results of the old release are not used (run.retrain_on_upgrade)."


def test_a_param_keeps_the_results_of_old_releases_and_the_run_says_so(lock: Path):
    sentence = installed.record(KEEPING, lock=lock)
    kept, now = written(), installed.releases()
    assert kept.pop("finetune") == now.pop("finetune") | {"timm": "0.9.1"}
    assert kept == now, "other stages have no result yet"
    assert sentence.endswith("results of the old release are kept, as run.retrain_on_upgrade is false.")


def test_nothing_is_said_without_an_upgrade_or_of_stages_that_run_elsewhere(lock: Path):
    assert installed.record(SHIPPED, stages=["compress", "evaluate"], lock=lock) is None
    assert installed.record(SHIPPED, stages=TRAINING, lock=lock) is not None
    lock.write_text(lock.read_text().replace("0.9.1", installed.releases()["finetune"]["timm"]))
    assert installed.record(SHIPPED, lock=lock) is None
    assert installed.record(SHIPPED, lock=Path("none")) is None


@pytest.mark.parametrize(
    "text",
    ["stages:\n<<<<<<< HEAD\n  ingest: {}\n=======\n", "<<<<<<< HEAD\n", "", "stages:\n", "stages:\n  ingest:\n"],
)
def test_a_lock_file_that_cannot_be_read_is_left_to_dvc(lock: Path, text: str):
    lock.write_text(text)
    assert installed.record(KEEPING, lock=lock) is None
    assert written() == installed.releases()


def test_each_stage_knows_the_code_that_decides_it_part_by_part(lock: Path, monkeypatch: pytest.MonkeyPatch):
    before = installed.deciding(SHIPPED)
    assert {*before["validate"]["code"]} == {
        *(f"components/{part}" for part in ("__init__.py", "stages/__init__.py", "stages/validate")),
        *(f"components/core/{part}" for part in ("__init__.py", "data", "params", "shift.py")),
        *(f"components/modalities/{part}" for part in ("__init__.py", "image")),
    }
    shutil.copytree(lineage.COMPONENTS, "components", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(lineage, "COMPONENTS", Path("components"))
    assert installed.deciding(SHIPPED) == before, "wherever it is installed"
    with Path("components/core/student.py").open("a") as file:
        file.write("# edited\n")
    after = installed.deciding(SHIPPED)
    changed = {
        (stage, part)
        for stage in STAGES
        for part in before[stage]["code"]
        if before[stage]["code"][part] != after[stage]["code"][part]
    }
    assert changed == {(stage, "components/core/student.py") for stage in ("pretrain", "distill", "control")}


def test_defaults_are_those_that_stand_in_for_what_is_left_out():
    document = YAML(typ="safe").load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    document["student"] |= {"augment": StudentAugment().model_dump()}
    del document["student"]["eval_every"], document["pretrain"]["mode"], document["validate"]
    del document["student"]["augment"]["mixup"]
    params = Params.model_validate(document)
    validate = params.validate_.model_dump(mode="json")
    names = ("student", "pretrain.mode", "seed", "validate.max_class_shift")
    assert installed.defaults(params, names) == {
        "student.eval_every": params.student.eval_every,
        "student.augment.mixup": params.student.augment.mixup,
        "pretrain.mode": params.pretrain.mode,
        "validate.max_class_shift": validate["max_class_shift"],
    }
    assert installed.defaults(params, ["student.augment"]) == {"student.augment.mixup": params.student.augment.mixup}
    assert installed.defaults(params, ["validate"]) == {"validate": validate}


def test_a_folder_without_a_pipeline_is_no_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"dvc.yaml is missing in .*: run reflux in the project's root folder"):
        installed.record(SHIPPED)


def test_the_runtime_of_the_file_that_ships_decides_the_stages_that_make_and_measure_it():
    now = installed.releases("executorch-int8")
    assert {stage for stage, each in now.items() if "executorch" in each} == {"compress", "evaluate"}
    assert now["compress"]["executorch"] == version("executorch")
    assert not any("executorch" in each for each in installed.releases("onnx-int8").values())
