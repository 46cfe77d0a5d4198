"""Several datasets in one checkout: their params change places, and nothing is computed again."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient

from reflux.components.core.artifacts import read_json
from reflux.components.core.errors import UserError
from reflux.components.core.params.file import load_params, override_params
from reflux.flows.commands.datasets import keep_active, use
from reflux.flows.local.environment import only_run
from tests.e2e.command import reflux
from tests.workspaces import make_tiny_project, picture


def activate(name: str) -> None:
    """Make a dataset active as `reflux data add` does."""
    keep_active(name)
    override_params([f"ingest.source=data/{name}", f"project.name={name}", f"registry.model_name={name}-student"])


@pytest.fixture
def two(checkout) -> Path:
    """A checkout with Fashion-MNIST, whose params were edited, and pets, which are active."""
    override_params(["student.steps=77"])
    activate("pets")
    return checkout


def test_the_params_of_two_datasets_change_places(two, call_reflux):
    assert load_params(Path("data/fashion-mnist.params.yaml")).student.steps == 77
    override_params(["student.steps=5"])
    pets = Path("params.yaml").read_bytes()
    code, out, _ = call_reflux("data", "use", "fashion-mnist")
    assert (code, load_params().ingest.source, load_params().student.steps) == (0, "data/fashion-mnist", 77)
    assert "those of pets are in data/pets.params.yaml" in out
    assert Path("data/pets.params.yaml").read_bytes() == pets, "with comments and all"
    assert not Path("data/fashion-mnist.params.yaml").exists(), "each dataset's params are in one place"
    use("pets")
    assert Path("params.yaml").read_bytes() == pets


def test_the_list_has_a_star_at_the_active_dataset(two, call_reflux):
    code, out, _ = call_reflux("data", "list")
    assert code == 0
    assert [line.split() for line in out.splitlines()[1:]] == [
        ["fashion-mnist", "data/fashion-mnist", "fashion-mnist-student"],
        ["*", "pets", "data/pets", "pets-student"],
    ]


def test_a_dataset_that_is_active_stays_so(two):
    before = Path("params.yaml").read_bytes()
    assert "pets is active already" in use("pets")
    keep_active("pets")
    assert Path("params.yaml").read_bytes() == before
    assert not Path("data/pets.params.yaml").exists()


def nothing(checkout: Path) -> str:
    return "birds"


def broken(checkout: Path) -> str:
    (checkout / "data/fashion-mnist.params.yaml").write_text("seed: many")
    return "fashion-mnist"


def taken(checkout: Path) -> str:
    shutil.copy("data/fashion-mnist.params.yaml", "data/pets.params.yaml")
    return "fashion-mnist"


@pytest.mark.parametrize(
    ("prepare", "sentence"),
    [
        (nothing, r"No dataset birds has params here \(there are fashion-mnist, pets\)"),
        (broken, "data/fashion-mnist.params.yaml: "),
        (taken, "data/pets.params.yaml has the params of another dataset than data/pets"),
    ],
)
def test_what_can_not_be_used_changes_nothing(two, prepare, sentence):
    name = prepare(two)
    before = {path: path.read_bytes() for path in (Path("params.yaml"), *Path("data").iterdir())}
    with pytest.raises(UserError, match=sentence):
        use(name)
    assert {path: path.read_bytes() for path in (Path("params.yaml"), *Path("data").iterdir())} == before


def test_params_do_not_change_under_a_run(two):
    with only_run(), pytest.raises(UserError, match="Another run is in progress"):
        use("fashion-mnist")
    assert load_params().project.name == "pets"


@pytest.mark.long
def test_a_dataset_that_is_active_again_is_restored_without_training(tmp_path, mlflow_template, monkeypatch):
    folder = make_tiny_project(tmp_path / "project")
    monkeypatch.chdir(folder)
    Path("mlflow.db").write_bytes(mlflow_template.read_bytes())
    rng = np.random.default_rng(1)
    for file in Path(shutil.copytree("data/shapes", "data/forms")).rglob("*.png"):
        picture(file.stem.partition("-")[0], rng).save(file)

    def call(*arguments: str) -> str:
        done = reflux(folder, *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert "shapes-student version 1 is the new @champion" in call("run")
    first = read_json(Path("artifacts/evaluate/metrics.json"))
    activate("forms")
    assert "forms-student version 1 is" in call("run")
    assert read_json(Path("artifacts/evaluate/metrics.json"))["dataset"] != first["dataset"]

    call("data", "use", "shapes")
    again = call("run")
    assert "nothing was trained" in again
    assert "started" not in again
    assert "shapes-student version 1 is the @champion." in again
    assert read_json(Path("artifacts/evaluate/metrics.json")) == first
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    assert {model.name for model in client.search_registered_models()} == {"shapes-student", "forms-student"}
