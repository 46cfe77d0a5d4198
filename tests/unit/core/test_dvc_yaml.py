import re
from pathlib import Path

import pytest

from reflux.components.core import dvc_yaml
from reflux.components.core.errors import UserError
from tests.workspaces import ROOT


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("stage", ["installed", "pretrain", "evaluate"])
def test_a_pipeline_that_lacks_a_stage_of_this_release_names_the_upgrade(stage):
    text = (ROOT / "dvc.yaml").read_text(encoding="utf-8")
    Path("dvc.yaml").write_text(re.sub(rf"^  {stage}:$", f"  {stage}_of_ours:", text, flags=re.MULTILINE))
    with pytest.raises(
        UserError, match=rf"^dvc.yaml lacks the stage {stage} of this release: `reflux upgrade` adds it\.$"
    ):
        dvc_yaml.stages()
    assert f"{stage}_of_ours" in dvc_yaml.parsed(dvc_yaml.text())


@pytest.mark.parametrize("text", ["", "stages:\n<<<<<<< HEAD\n", "vars: []\n", "stages: 3\n", "stages: \xff\n"])
def test_a_pipeline_that_is_none_is_one_sentence(text):
    Path("dvc.yaml").write_bytes(text.encode("latin-1"))
    with pytest.raises(
        UserError, match=r"^dvc.yaml is not valid YAML with stages: correct it, or restore it with `git"
    ):
        dvc_yaml.stages()
