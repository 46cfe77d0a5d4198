"""``reflux data add PATH --pipeline NAME`` under a real DVC: a project's further pipelines."""

from pathlib import Path

import pytest

from reflux.components.core.errors import UserError
from reflux.components.core.params.file import load_params
from reflux.flows.commands import data
from reflux.flows.commands.pipelines import add_to
from tests.integration.flows.commands.test_data import SPEEDS, pictures


@pytest.fixture(autouse=True)
def timed(monkeypatch):
    """A machine of known speed."""
    monkeypatch.setattr(data, "measure", lambda *_: SPEEDS)


def make(pipeline: str, path: Path) -> str:
    return add_to(pipeline, path, None, 10, None, None)


@pytest.mark.slow
def test_a_further_pipeline_has_its_own_params_and_the_projects_data(checkout, tmp_path, monkeypatch):
    before = Path("params.yaml").read_bytes()
    message = make("cats-and-dogs", pictures(tmp_path / "pets"))
    assert message.startswith("pipelines/cats-and-dogs is a new pipeline: commit it.")
    assert message.endswith("run --pipeline cats-and-dogs")
    assert Path("params.yaml").read_bytes() == before
    assert Path("data/pets.dvc").is_file()
    assert (Path.cwd(), sorted(path.name for path in Path("pipelines").iterdir())) == (checkout, ["cats-and-dogs"])
    params = load_params(Path("pipelines/cats-and-dogs/params.yaml"))
    assert (params.ingest.source, params.project.name) == ("../../data/pets", "cats-and-dogs")
    assert params.registry.model_name == "cats-and-dogs-student"

    assert "Next: " in make("same-data", Path("data/pets")), "two models of one dataset"
    assert load_params(Path("pipelines/same-data/params.yaml")).ingest.source == "../../data/pets"
    make("cats-and-dogs", pictures(tmp_path / "more"))
    assert load_params(Path("pipelines/cats-and-dogs/params.yaml")).ingest.source == "../../data/more", "planned anew"


def taken(project: Path) -> str:
    (project / "pipelines/notes").mkdir(parents=True)
    return "notes"


@pytest.mark.parametrize(
    ("prepare", "classes", "sentence"),
    [
        (lambda _: "../up", ("a", "b"), r"\.\./up can't name a pipeline"),
        (taken, ("a", "b"), "pipelines/notes is no pipeline, as it has no params.yaml"),
        (lambda _: "pets", ("a",), "has fewer than two classes"),
    ],
)
def test_what_is_refused_leaves_nothing(checkout, tmp_path, prepare, classes, sentence):
    name = prepare(checkout)
    before = sorted(Path().rglob("*"))
    with pytest.raises(UserError, match=sentence):
        make(name, pictures(tmp_path / "pets", classes=classes))
    assert sorted(Path().rglob("*")) == before, "no .dvc either"


def test_the_params_of_the_dataset_before_are_kept(checkout, tmp_path):
    data.add(pictures(tmp_path / "first"))
    before = Path("params.yaml").read_bytes()
    message = data.add(pictures(tmp_path / "second"))
    kept = Path(".reflux/replaced/first.params.yaml")
    assert f"the params of data/first, which params.yaml had until now, are in {kept}. For a model of each" in message
    assert kept.read_bytes() == before
    assert "until now" not in data.add(Path("data/second"))
