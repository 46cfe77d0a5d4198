from importlib.metadata import version
from pathlib import Path

import pytest

from reflux.components.core.artifacts import read_json
from reflux.components.core.contract import TRAINING
from reflux.components.core.runtime import packages

LOCK = """
schema: '2.0'
stages:
  finetune:
    params:
      artifacts/packages.json:
        finetune: {{torch: {torch}, torchvision: {torchvision}, timm: 0.9.1}}
      params.yaml: {{seed: 0}}
  ingest:
    params:
      params.yaml: {{seed: 0}}
"""


@pytest.fixture
def lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A lock file whose teacher was trained with an older release of timm."""
    monkeypatch.chdir(tmp_path)
    now = packages.releases()["finetune"]
    Path("dvc.lock").write_text(LOCK.format(**now))
    return Path("dvc.lock")


def test_a_gpus_build_and_a_cpus_share_results_of_one_release():
    build = packages.builds("finetune")["torch"]
    assert build == version("torch")
    assert packages.releases()["finetune"]["torch"] == build.split("+")[0]


def test_after_an_upgrade_dvc_is_given_the_installed_releases_and_the_run_says_so(lock: Path):
    sentence = packages.record(retrain=True, lock=lock)
    assert read_json(packages.FILE) == packages.releases()
    now = version("timm")
    assert sentence == f"timm 0.9.1 is now {now}: results of the old release are not used (run.retrain_on_upgrade)."


def test_a_param_keeps_the_results_of_old_releases_and_the_run_says_so(lock: Path):
    sentence = packages.record(retrain=False, lock=lock)
    written, installed = read_json(packages.FILE), packages.releases()
    assert written.pop("finetune") == installed.pop("finetune") | {"timm": "0.9.1"}
    assert written == installed, "other stages have no result yet"
    assert sentence.endswith("results of the old release are kept, as run.retrain_on_upgrade is false.")


def test_nothing_is_said_without_an_upgrade_or_of_stages_that_run_elsewhere(lock: Path):
    assert packages.record(retrain=True, stages=["compress", "evaluate"], lock=lock) is None
    assert packages.record(retrain=True, stages=TRAINING, lock=lock) is not None
    lock.write_text(lock.read_text().replace("0.9.1", packages.releases()["finetune"]["timm"]))
    assert packages.record(retrain=True, lock=lock) is None
    assert packages.record(retrain=True, lock=Path("none")) is None


@pytest.mark.parametrize("text", ["stages:\n<<<<<<< HEAD\n  ingest: {}\n=======\n", "<<<<<<< HEAD\n", ""])
def test_a_lock_file_that_cannot_be_read_is_left_to_dvc(lock: Path, text: str):
    lock.write_text(text)
    assert packages.record(retrain=False, lock=lock) is None
    assert read_json(packages.FILE) == packages.releases()


def test_the_runtime_of_the_file_that_ships_decides_the_stages_that_make_and_measure_it():
    now = packages.releases("executorch-int8")
    assert {stage for stage, each in now.items() if "executorch" in each} == {"compress", "evaluate"}
    assert now["compress"]["executorch"] == version("executorch")
    assert not any("executorch" in each for each in packages.releases("onnx-int8").values())
