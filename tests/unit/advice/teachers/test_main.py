import shutil
from pathlib import Path

import pytest
from safetensors.torch import save_file

from reflux.components.advice.plan.times import measurements
from reflux.components.advice.teachers.__main__ import main
from reflux.components.advice.teachers.result import RANKING, read
from reflux.components.core.artifacts import write_json
from reflux.components.core.errors import UserError
from reflux.components.core.params.file import load_params
from reflux.components.modalities.image.models.pixel_model import network
from tests.workspaces import training_workspace

REQUEST = {"names": ["resnet8=net.safetensors"], "sizes": [16], "minutes": 1, "download": False, "take": None}


@pytest.fixture
def workspace(tmp_path, monkeypatch) -> Path:
    """Ingested images of two classes, one candidate, and a machine whose speed is known."""
    training_workspace(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("reflux.components.advice.teachers.candidates.PACKAGES", {})
    monkeypatch.setattr("huggingface_hub.utils._cache_manager.HF_HUB_CACHE", str(tmp_path / "hub"))
    save_file(network("resnet8", 5, 3).state_dict(), "net.safetensors")
    write_json(Path("artifacts/ingest/dataset.json"), {"counts": {"train": 40, "val": 40, "test": 40, "unlabeled": 40}})
    for name, speed in measurements(load_params(), 2).items():
        write_json(speed.of.file(*speed.arguments), {"load": 0, "seconds": 2.0 if name == "start" else 0.001})
    return tmp_path


def test_the_test_split_is_not_opened(workspace):
    shutil.rmtree("artifacts/ingest/shards/test")
    shutil.rmtree("artifacts/ingest/shards/unlabeled")
    ranking = main(REQUEST)
    assert ranking == read()
    assert ranking.images == 80
    (row,) = ranking.rows
    assert row.accuracy > 0.9
    assert row.seconds == 1.0


def test_what_is_wrong_is_said_before_anything_is_computed(workspace):
    with pytest.raises(UserError, match="--take nobody is none of the teachers"):
        main(REQUEST | {"take": "nobody"})
    save_file(network("resnet20", 5, 3).state_dict(), "net.safetensors")
    with pytest.raises(UserError, match=r"net\.safetensors does not fit resnet8: name the network"):
        main(REQUEST)
    assert not RANKING.parent.exists()
