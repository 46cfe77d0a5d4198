"""``reflux promote | approve | rollback | history | lineage | reconcile | predict`` with and without a server."""

import csv
import io
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient
from PIL import Image

from reflux.components.core.params.file import override_params
from reflux.components.core.runtime.tracking import experiment_id
from reflux.components.registry.client import address
from reflux.components.registry.ledger import ledger, proof
from reflux.components.registry.register import register
from tests.integration.registry.faults import ready
from tests.servers import mlflow_server

PARAMS = Path(__file__).parents[3] / "params.yaml"


@pytest.fixture(params=["embedded", pytest.param("server", marks=pytest.mark.long)])
def anywhere(request, home, tmp_path, monkeypatch) -> Iterator[None]:
    """MLflow's database itself, then a server in front of it."""
    if request.param == "embedded":
        yield
        return
    with mlflow_server(tmp_path, home.database) as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
        yield


@pytest.fixture
def reflux(home, model_name, monkeypatch, call_reflux) -> Callable[..., tuple[int, str, str]]:
    """Calls the command as its entry point does."""
    shutil.copy(PARAMS, home.folder)
    ours = [f"project.name={home.experiment}", f"registry.model_name={model_name}", "registry.champion.margin=0.2"]
    override_params([*ours, "registry.gates.size_kb.max=1000", "registry.slices.gates={}"], home.folder / "params.yaml")
    monkeypatch.delenv("PREFECT_API_URL", raising=False)

    return call_reflux


def assert_that_the_champion_predicts(home, reflux, champion: str) -> None:
    """A file of one's own, and the one of the README's example."""
    image = home.folder / "dress.png"
    Image.fromarray(np.load(home.artifacts / "ingest/shards/test/images.npy")[199, ..., 0]).save(image)
    assert reflux("predict", str(image))[1].startswith(f"dress  ({champion})\n")
    (shown, *_) = re.findall(r"reflux predict (\S+)", (PARAMS.parent / "README.md").read_text(encoding="utf-8"))
    assert reflux("predict", str(PARAMS.parent / shown))[0] == 0


def test_a_version_is_measured_by_its_number_or_alias_against_a_file(home, champion, reflux):
    shards = home.artifacts / "ingest/shards"
    shutil.copytree(shards / "test", shards / "val")
    try:
        code, out, err = reflux("bench", "champion", "1", "artifacts/compress/student.onnx")
    finally:
        shutil.rmtree(shards / "val")
    assert (code, err) == (0, "")
    assert [line.split()[0] for line in out[out.index("file ") :].splitlines()[1:4]] == [
        "champion",
        "version",
        "student.onnx",
    ]
    assert reflux("bench", "7")[2].startswith("Error: clothes-")


def test_several_images_become_a_table_or_csv_and_those_without_a_class_are_listed_at_the_end(
    home, champion, model_name, reflux
):
    stored, folder = np.load(home.artifacts / "ingest/shards/test/images.npy")[..., 0], home.folder / "new"
    folder.mkdir()
    for row, name in enumerate(("[red] boot", "dress, long", "shirt")):
        Image.fromarray(stored[row]).save(folder / f"{name}.png")
    (folder / "torn.png").write_bytes(b"")

    code, out, err = reflux("predict", str(folder), "gone.png")
    assert code == 0
    cells = [re.split(r"  +", line.strip()) for line in out.splitlines()]
    assert cells[0] == ["file", "class", "probability"]
    assert [(Path(file).name, found) for file, found, _ in cells[1:4]] == [
        ("[red] boot.png", "boot"),
        ("dress, long.png", "dress"),
        ("shirt.png", "shirt"),
    ]
    assert out.endswith(f"\n3 images, by {model_name} version 1\n")
    assert err == f"2 could not be read:\n  gone.png does not exist\n  {folder}/torn.png is empty (zero bytes)\n"

    shutil.copy(folder / "shirt.png", home.folder / "=1+1.png")
    assert reflux("predict", "=1+1.png", "--csv")[1].splitlines()[1].startswith("'=1+1.png,shirt,0.9")
    strange = folder / os.fsdecode(b"caf\xe9.png")
    shutil.copy(folder / "shirt.png", strange)
    code, out, _ = reflux("predict", str(strange), "--csv")
    assert (code, out.splitlines()[1].split(",")[:2]) == (0, [f"{folder}/caf\\udce9.png", "shirt"])
    strange.unlink()
    shutil.copy(folder / "shirt.png", folder / "\x1b[2Jshirt.png")
    code, out, err = reflux("predict", str(folder), "\x1b[2Jgone.png")
    assert (code, r"\x1b[2Jshirt.png" in out, r"\x1b[2Jgone.png does not exist" in err) == (0, True, True)
    assert "\x1b" not in out + err
    (folder / "\x1b[2Jshirt.png").unlink()

    code, out, _ = reflux("predict", f"{folder}/*.png", "--csv", "--top", "2")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert code == 0
    assert list(rows[0]) == ["file", "class", "probability", "class_2", "probability_2"]
    assert rows[1]["file"] == f"{folder}/dress, long.png"
    assert (rows[1]["class"], float(rows[1]["probability"])) == ("dress", pytest.approx(0.965, abs=1e-3))
    assert float(rows[1]["probability_2"]) == pytest.approx(0.018, abs=1e-3)

    for paths, sentence in {
        ("gone.png",): "gone.png does not exist: give PNG",
        (f"{folder}/torn.png",): f"{folder}/torn.png is empty (zero bytes): give PNG",
        (f"{folder}/torn.png", "gone.png"): "None of 2 can be read, as gone.png does not exist: give PNG",
    }.items():
        code, out, err = reflux("predict", *paths)
        assert (code, out) == (2, "")
        assert err.startswith(f"Error: {sentence}")
        assert len(err.splitlines()) == 1


def test_each_command_says_what_it_did_with_its_exit_code(home, model_name, anywhere, reflux):
    client = MlflowClient()
    own = replace(home, run_id=client.create_run(experiment_id(client, home.experiment)).info.run_id)

    def registered(right: int) -> None:
        register(own.evaluation(right), model_name, home.experiment, own.lineage())

    assert reflux("promote", "1")[::2] == (
        2,
        f"Error: No model is registered as {model_name} in {address()}: `reflux run` makes one.\n",
    )
    registered(170)
    assert reflux("rollback", "--reason", "worse")[0] == 2  # there is nothing to go back to
    code, out, _ = reflux("promote", "1")
    assert (code, f"{model_name} version 1 is the new @champion." in out) == (0, True)
    registered(100)
    code, out, _ = reflux("promote", "2")
    assert (code, "✗ Accuracy 0.5 is below the minimum of 0.8." in out) == (3, True)
    registered(190)
    code, _, err = reflux("promote", "3", "--expected-champion", "2")
    assert (code, f"The champion of {model_name} is version 1 by now, not version 2" in err) == (4, True)
    assert reflux("promote", "9")[::2] == (
        2,
        f"Error: {model_name} has no version 9: `reflux history` lists its versions.\n",
    )
    assert reflux("promote", "3", "--expected-champion", "1")[0] == 0
    code, out, _ = reflux("rollback", "--reason", "worse on the new cameras")
    assert (code, out) == (0, f"{model_name}: version 1 is the champion again; version 3 was rolled back.\n")
    override_params(["registry.approval=human"], home.folder / "params.yaml")
    registered(195)
    code, out, _ = reflux("promote", "4")
    assert code == 3
    assert "version 4 awaits your approval (`reflux approve 4 --reason …`)" in " ".join(out.split())
    assert reflux("approve", "3", "--reason", "seen")[0] == 2  # it awaits nothing
    code, out, _ = reflux("approve", "4", "--reason", "seen on the new cameras")
    assert (code, f"{model_name} version 4 is the new @champion." in out) == (0, True)

    assert_that_the_champion_predicts(home, reflux, f"{model_name} version 4")
    code, out, _ = reflux("history", "--json")
    past = json.loads(out)
    assert (code, past["champion"], past["previous"]) == (0, 4, 1)
    assert [(entry["number"], entry["version"], entry["outcome"]) for entry in past["entries"]] == [
        (7, 4, "promoted"),
        (6, 4, "awaiting approval"),
        (5, 1, "rolled back"),
        (4, 3, "promoted"),
        (3, 3, "overtaken"),
        (2, 2, "rejected"),
        (1, 1, "promoted"),
    ]
    assert past["entries"][2]["reason"] == "worse on the new cameras"
    code, out, _ = reflux("lineage", "4", "--json")
    assert (code, json.loads(out)["tree"]["value"]) == (1, f"{model_name} version 4")  # there is no git here
    assert reflux("lineage", "9")[0] == 2
    assert reflux("reconcile")[:2] == (0, "Nothing was interrupted: the registry is consistent.\n")
    intent = replace(ready(model_name, 3, 4), previous=1)
    proof.log(client, ledger.begin(client, home.experiment, intent), intent.record or {})
    assert reflux("reconcile")[:2] == (0, f"{model_name} version 3: promoted. It is better.\n")
    assert client.get_model_version_by_alias(model_name, "champion").version in ("3", 3)
