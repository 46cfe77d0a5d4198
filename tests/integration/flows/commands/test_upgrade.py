"""``reflux upgrade``, in projects that ``reflux new`` made and that are then as older and newer releases make them."""

import contextlib
import re
import shutil
from importlib.metadata import version
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from reflux.components.core.contract import STAGES
from reflux.components.core.params.comments import comments_of
from reflux.components.core.params.file import load_params
from reflux.components.core.runtime import installed
from reflux.flows.commands.new import new
from reflux.flows.repo.upgrade import write
from tests.workspaces import git

OWN = """
  # Our report.
  report:
    cmd: python report.py   # ours
    deps: [artifacts/evaluate/metrics.json]

# Of the report.
vars:
  - title: Flowers
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("upgrade")
    with contextlib.chdir(folder), pytest.MonkeyPatch.context() as patch:
        patch.setenv("GIT_CEILING_DIRECTORIES", str(folder.parent))
        new(Path("flowers"))
    return folder / "flowers"


@pytest.fixture
def project(made, tmp_path, monkeypatch) -> Path:
    """A project of this release, in the working folder."""
    folder = tmp_path / "flowers"
    shutil.copytree(made, folder, symlinks=True, ignore=shutil.ignore_patterns("*.parquet"))
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def older(project) -> Path:
    """The same, as an older release would have made it, with a stage of its own."""
    text = Path("params.yaml").read_text(encoding="utf-8")
    text, lines = re.subn(r"  rounds: 1  .*\n.*\n", "", text.replace("  min_size_px: 8 ", "  min_size_px: 9 "))
    assert lines == 1
    Path("params.yaml").write_text(text, encoding="utf-8")
    pipeline = re.sub(r"  installed:.*?\n\n", "", Path("dvc.yaml").read_text(encoding="utf-8"), flags=re.DOTALL)
    pipeline = pipeline.replace("{artifacts/installed.json: [ingest]}", "seed")
    Path("dvc.yaml").write_text(pipeline.rstrip("\n") + "\n" + OWN, encoding="utf-8")
    pin(version("reflux"), "0.0.9")
    git(project, "commit", "-qam", "older")
    return project


def pin(now: str, release: str) -> None:
    file = Path("pyproject.toml")
    file.write_text(file.read_text(encoding="utf-8").replace(f"reflux=={now}", f"reflux=={release}"), encoding="utf-8")


def texts(*files: Path) -> list[str]:
    return [file.read_text(encoding="utf-8") for file in files]


def contents() -> dict[Path, bytes]:
    files = (file for file in Path().rglob("*") if file.is_file() and file.parts[0] not in (".git", ".reflux"))
    return {file: file.read_bytes() for file in files}


def test_a_project_of_an_older_release_is_brought_to_the_installed_one(older, made, call_reflux):
    roses = Path("pipelines/roses")
    roses.mkdir(parents=True)
    for file in ("params.yaml", "dvc.yaml"):
        shutil.copy(file, roses)
    git(older, "add", ".")
    git(older, "commit", "-qm", "roses")
    before = contents()
    look = call_reflux("upgrade", "--check")
    assert contents() == before
    code, out, _ = call_reflux("upgrade")
    assert (look[0], code) == (1, 0)
    assert look[1].partition("Nothing has been written.")[0] == out.partition("This project is of")[0]
    params, shipped = load_params(), load_params(made / "params.yaml")
    assert params.ingest == shipped.ingest.model_copy(update={"min_size_px": 9})
    assert params.finetune == shipped.finetune
    assert texts(roses / "params.yaml", roses / "dvc.yaml") == texts(Path("params.yaml"), Path("dvc.yaml"))
    pipeline, shipped_pipeline = texts(Path("dvc.yaml"), made / "dvc.yaml")
    assert pipeline == shipped_pipeline.rstrip("\n") + "\n" + OWN
    assert list(YAML(typ="safe").load(pipeline)["stages"]) == ["installed", *STAGES, "report"]
    before, after = map(comments_of, texts(made / "params.yaml", Path("params.yaml")))
    assert after == before
    assert f'"reflux=={version("reflux")}"' in Path("pyproject.toml").read_text(encoding="utf-8")
    for line in (
        "  new: finetune.rounds = 1",
        "  new stages: installed",
        "  stages replaced by those of this release: ingest",
        "  stages of your own, which stay: report",
        f"  asks for Reflux {version('reflux')}, not 0.0.9",
    ):
        assert line in out.splitlines()
    upgraded = contents()
    nothing = f"Nothing to do: this project is of Reflux {version('reflux')}, which is installed.\n"
    assert call_reflux("upgrade") == (0, nothing, "")
    assert contents() == upgraded


@pytest.mark.parametrize(
    ("break_it", "sentence"),
    [
        ("dvc.yaml", "dvc.yaml has changes that are not committed, and its stages are replaced: commit it first."),
        ("params.yaml", "params.yaml: student.steps = 'many' is refused: it must be a whole number."),
        ("pyproject.toml", "pyproject.toml is not valid"),
    ],
)
def test_what_can_not_be_upgraded_is_one_sentence_and_changes_nothing(older, call_reflux, break_it, sentence):
    file = Path(break_it)
    text = file.read_text(encoding="utf-8").replace("  steps: 1500 ", "  steps: many ")
    file.write_text(text + {"dvc.yaml": "# ours\n", "pyproject.toml": "[\n"}.get(break_it, ""), encoding="utf-8")
    before = contents()
    code, _, err = call_reflux("upgrade")
    assert code == 2
    assert sentence in err
    assert len(err.splitlines()) == 1
    assert contents() == before


def test_a_root_that_is_no_pipeline_is_upgraded_from_the_folder_of_one(older, call_reflux, monkeypatch):
    roses = Path("pipelines/roses")
    roses.mkdir(parents=True)
    for file in ("params.yaml", "dvc.yaml"):
        git(older, "mv", file, str(roses))
    git(older, "commit", "-qm", "no pipeline in the root")
    monkeypatch.chdir(roses)
    code, out, err = call_reflux("upgrade")
    assert (code, err) == (0, "")
    assert [line for line in out.splitlines() if line.startswith("pipelines/")] == [
        f"{roses}/{name}" for name in ("params.yaml", "dvc.yaml")
    ]
    assert not any((older / name).exists() for name in ("params.yaml", "dvc.yaml"))
    assert load_params(older / roses / "params.yaml").ingest.min_size_px == 9
    assert f'"reflux=={version("reflux")}"' in (older / "pyproject.toml").read_text(encoding="utf-8")


def test_verbs_name_the_upgrade_where_a_project_is_older(older, call_reflux):
    code, _, err = call_reflux("plan")
    assert code == 2
    assert err == "Error: dvc.yaml lacks the stage installed of this release: `reflux upgrade` adds it.\n"


def test_the_project_of_a_newer_release_is_one_sentence(project, call_reflux):
    pin(version("reflux"), "99.0")
    sentence = f"Error: This project is of Reflux 99.0, and {version('reflux')} is installed: install the wheel of "
    for verb in (["run"], ["plan"], ["history"], ["predict", "data/shoe.png"]):
        code, _, err = call_reflux(*verb)
        assert code == 2
        assert err == sentence + "the release that pyproject.toml names.\n"


@pytest.mark.parametrize(
    ("name", "line", "lost"),
    [
        ("params.yaml", "compress:\n  magic: 3\n", "params.yaml: compress.magic is not a parameter"),
        (
            "dvc.yaml",
            "stages:\n  dream:\n    cmd: python -m reflux.components.dream\n",
            "dvc.yaml: this release has no stage dream",
        ),
    ],
)
def test_a_downgrade_that_would_lose_something_is_refused(project, call_reflux, name, line, lost):
    pin(version("reflux"), "99.0")
    file, head = Path(name), line.split("\n", 1)[0] + "\n"
    file.write_text(file.read_text(encoding="utf-8").replace(head, line), encoding="utf-8")
    before = contents()
    code, _, err = call_reflux("upgrade")
    assert code == 2
    assert err == (
        f"Error: This project is of Reflux 99.0, and {version('reflux')}, which is installed, can't keep all of it "
        f"({lost}): install the wheel of the release that pyproject.toml names.\n"
    )
    assert contents() == before


def test_a_downgrade_that_loses_nothing_moves_the_pin(project, call_reflux):
    before = contents()
    pin(version("reflux"), "99.0")
    assert call_reflux("upgrade")[0] == 0
    assert contents() == before


@pytest.mark.slow
def test_defaults_that_have_changed_and_what_the_next_run_computes_are_said(project, made, call_reflux):
    shutil.copytree(made / "data", "data", dirs_exist_ok=True)
    text = re.sub(r"\n  prefer: smallest .*", "", Path("params.yaml").read_text(encoding="utf-8"))
    Path("params.yaml").write_text(text, encoding="utf-8")
    noted = {"compress": {"defaults": {"compress.prefer": "fastest"}}}
    stages = {name: {"cmd": "x", "params": {str(installed.FILE): {name: noted[name]}}} for name in noted}
    with Path("dvc.lock").open("w", encoding="utf-8") as file:
        YAML().dump({"schema": "2.0", "stages": stages}, file)
    pipeline = re.sub(r"  validate:\n.*?\n\n", "", Path("dvc.yaml").read_text(encoding="utf-8"), flags=re.DOTALL)
    Path("dvc.yaml").write_text(pipeline, encoding="utf-8")
    pin(version("reflux"), "0.0.9")
    code, out, _ = call_reflux("upgrade", "--check")
    assert code == 1
    assert "  new stages: validate\n" in out
    assert "  the default of compress.prefer: fastest → smallest" in out.splitlines()
    assert "The next run\n  ingest computed: it was not computed before\n  validate computed: it was not" in out


def test_either_all_files_are_written_or_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a").write_text("1")
    Path("b").write_text("1")
    with pytest.raises(UnicodeEncodeError):
        write({Path("a"): "2", Path("b"): "\udc80"})
    assert {path.name: path.read_text() for path in Path().iterdir()} == {"a": "1", "b": "1"}
