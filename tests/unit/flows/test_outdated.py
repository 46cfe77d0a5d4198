from pathlib import Path

import pytest

from components.core.artifacts import sha256_file, write_json
from flows.retrain import outdated


def test_weights_that_changed_under_their_name_are_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    Path("teacher.safetensors").write_bytes(b"first")
    assert outdated("teacher.safetensors") == frozenset()
    write_json(Path("artifacts/pretrain/model.json"), {"sha256": sha256_file(Path("teacher.safetensors"))})
    assert outdated("teacher.safetensors") == frozenset()
    Path("teacher.safetensors").write_bytes(b"second")
    assert outdated("teacher.safetensors") == {"pretrain"}
    assert outdated("pypi") == frozenset()
