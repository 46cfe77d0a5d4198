from pathlib import Path

import pytest

from components.core.params.file import load_params
from components.core.runtime import lineage
from components.core.runtime.stage import Stage
from tests.workspaces import ROOT


def test_a_checkpoint_is_kept_under_the_code_the_seed_and_the_sections_that_decide_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    params = load_params(ROOT / "params.yaml")
    monkeypatch.chdir(tmp_path)

    def key(code: str, **changes: object) -> str:
        monkeypatch.setattr(lineage, "code_sha256", {"control": code}.__getitem__)
        return Stage("control", params.model_copy(update=changes)).checkpoints("student").path.name

    other = params.student.model_copy(update={"steps": 7})
    keys = [key("one"), key("two"), key("one", seed=7), key("one", student=other)]
    assert len(set(keys)) == 4
    assert key("one", label=params.label.model_copy(update={"views": 9})) == keys[0]
