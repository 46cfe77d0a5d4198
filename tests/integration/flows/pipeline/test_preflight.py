"""The checks before training, as a process under the supervisor."""

from pathlib import Path

import pytest

from reflux.components.core.errors import UserError
from reflux.flows.pipeline import preflight as module
from reflux.flows.pipeline.preflight import preflight

pytestmark = pytest.mark.slow

TINY = ("pretrain.model=resnet20", "pretrain.weights=random", "finetune.image_size=16", "student.image_size=16")


def test_params_are_checked_once_and_their_gates_each_time(checkout, monkeypatch, capsys):
    before, done = Path("params.yaml").read_bytes(), []
    preflight([*TINY, "student.steps=7"], meanwhile=lambda: done.append("imports"))
    assert done == ["imports"]
    assert "before anything is trained" in capsys.readouterr().out
    monkeypatch.setattr(module, "supervised", lambda command, *_, **__: pytest.fail(f"{command} ran again"))
    preflight([*TINY, "student.steps=8"], meanwhile=lambda: pytest.fail("no process is awaited"))
    assert capsys.readouterr().out == ""
    with pytest.raises(UserError, match=r"registry\.gates\.size_kb\.max = 9 can't be passed"):
        preflight([*TINY, "registry.gates.size_kb.max=9"])
    assert Path("params.yaml").read_bytes() == before


def test_a_refusal_is_the_sentence_of_the_process_and_is_not_kept(checkout):
    for _ in range(2):
        with pytest.raises(UserError, match=r"^No model is named resnet8_slm; did you mean resnet8_slim"):
            preflight([*TINY, "student.model=resnet8_slm"])
    assert not list(Path(".reflux").rglob("*.json"))


def test_a_check_that_is_killed_refuses_nothing(checkout, monkeypatch, capsys):
    monkeypatch.setattr(module, "output_of", lambda *_: (137, ["Killed"]))
    preflight(TINY)
    assert "Warning: the check ended with code 137 (Killed)" in capsys.readouterr().err
