import os
import shutil
from pathlib import Path

import pytest

from reflux.components.core.params.file import override_params
from reflux.components.core.runtime import tracking
from reflux.flows import cli
from reflux.flows.cli.app import _seen_from
from reflux.flows.commands.run import run_pipeline
from reflux.flows.local.environment import only_run

ROOT = Path(__file__).parents[3]


@pytest.fixture
def reflux(tmp_path, monkeypatch, call_reflux):
    """Runs the command as its entry point does, in a folder with the default params and no data."""
    shutil.copy(ROOT / "params.yaml", tmp_path)
    (tmp_path / ".dvc").mkdir()
    shutil.copy(ROOT / ".dvc" / "config", tmp_path / ".dvc")
    (tmp_path / ".dvc" / "config.local").write_text("[core]\n    no_scm = True\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")  # and so put back afterwards, whatever the command sets
    monkeypatch.delenv("MLFLOW_TRACKING_URI")

    return call_reflux


def verbs() -> list[str]:
    """Every command, as it is typed after ``reflux``."""
    groups = {group.name: group.typer_instance for group in cli.app.registered_groups}
    apps = [("", cli.app), *((f"{name} ", app) for name, app in groups.items())]
    return [
        f"{prefix}{command.name or command.callback.__name__}"
        for prefix, app in apps
        for command in app.registered_commands
    ]


@pytest.mark.parametrize("command", ["", "data", *verbs()])
def test_every_command_has_help_with_a_real_example(reflux, command):
    code, out, _ = reflux(*command.split(), "-h")
    assert code == 0
    if command not in ("", "data"):
        assert "Example: " in out
        assert f"reflux {command}" in out.partition("Example: ")[2]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["run", "-S", "studnt.steps=3"], "studnt is not a parameter; did you mean student?"),
        (["run", "-S", "student.steps=many"], "student.steps = 'many' is refused"),
        (["run", "-S", "student.steps"], "is not of the form section.key=value"),
        (["run"], "ingest.source = data/fashion-mnist does not exist"),
        (["run", "-S", "ingest.source=nowhere"], "ingest.source = nowhere does not exist"),
        (["data", "add", "nowhere"], "nowhere does not exist"),
        (["data", "add", "no\x1b[2J\nwhere"], r"no\x1b[2J\nwhere does not exist"),
        (["data", "add", "."], ". contains this project's data folder: give the folder of your dataset alone"),
        (["data", "add", ".."], ".. contains this project's data folder"),
        (["data", "add", "data"], "data contains this project's data folder"),
        (["predict", "shoe.png"], "There is no model yet"),
        (["history"], "There is no model yet"),
        (["metrics"], "There is no model yet"),
        (["rollback", "--reason", "worse"], "There is no model yet"),
        (["approve", "1", "--reason", "seen"], "There is no model yet"),
        (["reconcile"], "There is no model yet"),
        (["promote", "1"], "There is no model yet"),
        (["gc"], "There is no model yet"),
        (["gc", "--older-than", "soon"], "soon is no time span such as 90d"),
        (["gc", "--older-than", "999999w"], "999999w is no time span such as 90d"),
    ],
)
def test_a_user_error_is_one_sentence_and_exit_code_2(reflux, arguments, sentence):
    Path("data").mkdir()
    before = Path("params.yaml").read_bytes()
    code, out, err = reflux(*arguments)
    assert code == 2
    assert out == ""
    assert err.startswith("Error: ")
    assert sentence in err
    assert len(err.splitlines()) == 1
    assert Path("params.yaml").read_bytes() == before


@pytest.fixture
def pets(reflux, tmp_path) -> Path:
    """A pipeline of the project in the working folder."""
    folder = tmp_path / "pipelines" / "pets"
    folder.mkdir(parents=True)
    shutil.copy("params.yaml", folder)
    return folder


def test_a_pipeline_is_named_by_an_option_by_a_variable_or_by_the_folder(reflux, pets, tmp_path, monkeypatch):
    override_params(["ingest.source=../../data/pets"], pets / "params.yaml")
    sentence = "ingest.source = ../../data/pets does not exist"
    code, _, err = reflux("run", "--pipeline", "pets")
    assert (code, err.splitlines()[0], Path.cwd()) == (2, "In pipelines/pets:", pets)
    assert sentence in err
    assert sentence in reflux("run")[2]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REFLUX_PIPELINE", "pets")
    assert sentence in reflux("run")[2]
    assert sorted(path.name for path in pets.iterdir()) == [".reflux", "params.yaml"]


def test_a_pipeline_that_is_not_there_is_one_sentence_with_those_that_are(reflux, pets):
    for verb in (["run"], ["history"], ["predict", "shoe.png"]):
        code, out, err = reflux(*verb, "--pipeline", "pet")
        assert (code, out) == (2, "")
        assert err.startswith("Error: No pipeline is called pet: those of this project are pets; ")
        assert len(err.splitlines()) == 1


def test_in_a_root_that_is_no_pipeline_the_command_lists_them(reflux, pets, tmp_path):
    (tmp_path / "params.yaml").unlink()
    code, _, err = reflux("run")
    assert (code, len(err.splitlines())) == (2, 1)
    assert f"params.yaml is missing in {tmp_path.name}/: choose a pipeline with --pipeline: pets." in err


def test_paths_are_those_that_the_user_sees(pets):
    Path("shoe.onnx").touch()
    values = [Path("new"), [Path("a.png"), Path("b/*.jpg")], "./shoe.onnx", "champion", "org/model", Path("/x/a.png")]
    above = Path("../..")
    assert _seen_from(Path("pipelines/pets"), values) == [
        *(above / "new", [above / "a.png", above / "b/*.jpg"], "../../shoe.onnx"),
        *("champion", "org/model", Path("/x/a.png")),
    ]


def test_a_prefect_server_that_is_away_is_named(reflux, monkeypatch):
    Path("data/fashion-mnist").mkdir(parents=True)
    Path("data/fashion-mnist/train.parquet").touch()
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    before = Path("params.yaml").read_bytes()
    code, _, err = reflux("run", "-S", "student.steps=3")
    assert code == 2
    assert "Prefect at http://127.0.0.1:9/api does not answer" in err
    assert Path("params.yaml").read_bytes() == before, "nothing has started"


@pytest.mark.parametrize(
    "arguments", [["run"], ["run", "-S", "seed=1"], ["ui"], ["boards"], ["data", "add", "."], ["bench"]]
)
def test_outside_a_project_the_command_says_where_to_go_and_leaves_nothing_behind(reflux, arguments):
    Path("params.yaml").unlink()
    shutil.rmtree(".dvc")
    code, _, err = reflux(*arguments)
    assert code == 2
    assert "run reflux in the project's root folder" in err
    assert len(err.splitlines()) == 1
    assert not list(Path().iterdir())


@pytest.mark.parametrize("model", ["", "pets/3", "pets@champion", "models:/pets/3"])
def test_a_model_to_predict_with_is_an_alias_or_a_number(reflux, model):
    code, _, err = reflux("predict", "a.png", "--model", model)
    sentence = f"--model {model} is neither an alias nor a version number: `reflux history` lists both."
    assert (code, err) == (2, f"Error: {sentence}\n")


def test_an_empty_tracking_uri_is_none(reflux, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    code, _, err = reflux("history")
    assert (code, os.environ["MLFLOW_TRACKING_URI"]) == (2, f"sqlite:///{Path('mlflow.db').resolve()}")
    assert err.startswith("Error: There is no model yet")


@pytest.mark.parametrize("arguments", [["history"], ["promote", "1"], ["run", "-S", "seed=1"], ["ui"], ["boards"]])
def test_a_database_that_was_lost_is_not_taken_for_a_new_one(reflux, monkeypatch, arguments):
    monkeypatch.setattr(tracking, "_SECONDS_TO_BEGIN", 0)
    database, before = Path("mlflow.db").resolve(), Path("params.yaml").read_bytes()
    database.touch()
    code, _, err = reflux(*arguments)
    sentence = f"Error: MLflow's database {database} is empty (0 bytes), so that all runs and models in it are lost: "
    assert (code, err) == (2, f"{sentence}restore a copy of it, or delete it to begin anew.\n")
    assert (database.stat().st_size, Path("params.yaml").read_bytes()) == (0, before)


@pytest.mark.parametrize("uri", ["file:///tmp/runs", "./mlruns", "htp://ada:secret@mlflow", "postgres://db/mlflow"])
@pytest.mark.parametrize("arguments", [["run", "-S", "seed=1"], ["ui"], ["boards"], ["history"]])
def test_what_is_no_mlflow_is_refused_in_one_sentence(reflux, monkeypatch, arguments, uri):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    before = Path("params.yaml").read_bytes()
    code, _, err = reflux(*arguments)
    assert code == 2
    assert err.startswith("Error: MLFLOW_TRACKING_URI = ")
    assert "is no MLflow server or database: set it to http://…" in err
    assert "secret" not in err
    assert len(err.splitlines()) == 1
    assert Path("params.yaml").read_bytes() == before


@pytest.mark.parametrize("verb", ["history", "boards"])
def test_a_database_that_is_away_is_named_in_one_sentence(reflux, monkeypatch, verb):
    monkeypatch.setattr(tracking, "_TRIES_OF_A_DATABASE", 1)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://ada:secret@127.0.0.1:9/mlflow")
    code, _, err = reflux(verb)
    assert code == 2
    assert err.startswith("Error: MLflow at postgresql://127.0.0.1:9/mlflow does not answer: check that the database")
    assert len(err.splitlines()) == 1


def test_a_second_run_in_the_same_checkout_is_kept_out(reflux):
    with only_run():
        code, _, err = reflux("run")
    assert code == 2
    assert "Another `reflux run`, `tune`, `teachers`, `upgrade` or `gc` of this pipeline is in progress" in err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("predict a.png --top 0", "--top 0 is refused: it must be 1 or more."),
        ("ui --port 65501", "--port 65501 is refused: it must be 65500 or less."),
        ("teachers --size 224 --size large", "--size large is refused: it must be a whole number."),
        ("data add x --max-kb inf", "--max-kb: inf is not a finite number."),
        ("promote abc", "version abc is refused: it must be a whole number."),
        ("promote", "Missing argument 'version': `reflux promote -h` says what it takes."),
        ("approve 1", "Missing option '--reason': `reflux approve -h` says what it takes."),
        ("run --fast", "No such option: --fast: `reflux run -h` says what it takes."),
        ("tune --minutes", "Option '--minutes' requires an argument: `reflux -h` says what it takes."),
        ("history 3", "Got unexpected extra argument(s) (3): `reflux history -h` says what it takes."),
        ("data ad x", "No such command 'ad'. Did you mean 'add'? `reflux data -h` says what it takes."),
    ],
)
def test_a_command_line_that_can_not_be_parsed_is_one_sentence(reflux, arguments, sentence):
    assert reflux(*arguments.split()) == (2, "", f"Error: {sentence}\n")


@pytest.mark.parametrize("command", ["", "data"])
def test_a_command_that_needs_more_shows_its_help(reflux, command):
    code, _, err = reflux(*command.split())
    assert (code, err.splitlines()[0]) == (
        2,
        " ".join(filter(None, ["Usage: reflux", command, "[OPTIONS] COMMAND [ARGS]..."])),
    )


@pytest.mark.parametrize("number", ["nan", "inf", "-inf"])
@pytest.mark.parametrize(
    "arguments", ["data add x --minutes", "data add x --max-kb", "tune --minutes", "teachers --minutes"]
)
def test_a_number_that_is_not_finite_is_refused(reflux, arguments, number):
    code, _, err = reflux(*arguments.split(), number)
    assert code == 2
    assert err.startswith(f"Error: {arguments.split()[-1]}")
    assert len(err.splitlines()) == 1


def test_the_lock_is_free_after_a_run_that_failed(reflux):
    for _ in range(2):
        with pytest.raises(Exception, match="does not exist"):
            run_pipeline([])
