import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from mlflow import MlflowClient
from PIL import Image

from reflux.components.core.errors import UserError
from reflux.components.registry.predict import load_model, predict
from reflux.components.registry.promote import approve
from reflux.components.registry.rollback import rollback
from tests.integration.registry.faults import bring_code, flip_byte, registered_file, retag
from tests.workspaces import example


def test_a_challenger_whose_file_was_changed_is_refused(model_name, registered, judge, aliases):
    version = registered(right=180)
    flip_byte(model_name, version, "model.onnx")
    with pytest.raises(UserError, match="version 1 was changed"):
        judge(version)
    assert aliases() == {"challenger": 1}


def test_a_champion_whose_file_was_changed_blocks_the_comparison(model_name, registered, judge, aliases):
    judge(registered(right=180))
    version = registered(right=190)
    flip_byte(model_name, 1, "model.onnx")
    with pytest.raises(UserError, match=r"version 1 was changed.* `reflux rollback`"):
        judge(version)
    assert aliases()["champion"] == 1


def test_metrics_that_were_edited_are_refused(home, model_name, registered, judge):
    version = registered(right=180)
    path = registered_file(model_name, version, "evaluation/metrics.json")
    path.write_text(path.read_text().replace("0.9", "0.99", 1))
    with pytest.raises(UserError, match=r"A file of .* was changed"):
        judge(version)
    retag(model_name, version)
    with pytest.raises(UserError, match="evaluation kept with"):
        judge(version)


def test_a_model_from_elsewhere_is_refused(home, model_name, judge):
    mlflow_client = MlflowClient()
    mlflow_client.create_registered_model(model_name)
    mlflow_client.create_model_version(model_name, f"file://{home.folder}/mlartifacts/clothes/foreign", home.run_id)
    with pytest.raises(UserError, match="not registered by Reflux"):
        judge(1)


def test_any_file_that_was_changed_added_or_removed_is_refused_by_every_command_that_loads_or_moves(
    keys, home, model_name, registered, judge, aliases, smoke_tested
):
    """By someone who can write a version's files, and no tag: nothing of them is imported."""
    for right in (170, 180):
        judge(registered(right))
    registered(right=190)
    assert judge(3, approval="human").outcome == "awaiting approval"
    Image.new("L", (16, 16)).save(home.folder / "black.png")
    ran = home.folder / f"{model_name}-ran"
    attempts = {
        1: [
            lambda: rollback(home.experiment, model_name, "worse"),
            lambda: list(predict([home.folder / "black.png"], f"models:/{model_name}/1")),
        ],
        3: [lambda: approve(home.experiment, model_name, 3, "seen"), lambda: judge(3, again=True)],
    }
    for version, commands in attempts.items():
        folder = registered_file(model_name, version, ".")
        own, theirs = "    loader_module: mlflow.onnx\n", "    code: code\n    loader_module: evil\n"
        loader = (folder / "MLmodel").read_text().replace(own, theirs)
        assert theirs in loader
        evil = f"from pathlib import Path\nPath({str(ran)!r}).touch()\n"
        for changes in (
            {"MLmodel": loader, "code/evil.py": evil},  # the audit's: code that runs where the version is loaded
            {"preprocess.py": evil},
            {"evaluation/probe.npz": None},
        ):
            before = {name: (folder / name).read_bytes() if (folder / name).is_file() else None for name in changes}
            write(folder, changes)
            for command in commands:
                with pytest.raises(UserError, match=f"A file of .* version {version} was changed, added or removed"):
                    command()
            write(folder, before)
    (registered_file(model_name, 1, ".") / "linked.py").symlink_to("/dev/null")
    with pytest.raises(UserError, match=r"A file of .* version 1 is a link: it is refused"):
        rollback(home.experiment, model_name, "worse")
    assert not ran.exists()
    assert aliases() == {"challenger": 3, "champion": 2, "previous": 1}


@pytest.mark.slow
def test_code_that_was_put_to_a_champion_runs_where_mlflow_alone_loads_it_and_not_where_its_hash_is_checked(
    keys, home, model_name, registered, judge
):
    judge(registered(right=180))
    champion, ran = f"models:/{model_name}@champion", home.folder / f"{model_name}-ran"
    bring_code(model_name, 1, ran)
    with pytest.raises(UserError, match=r"A file of .* version 1 was changed"):
        load_model(champion)
    lines = example("how-to/champion.md", "pyfunc.load_model").replace("fashion-mnist-student", model_name)
    with pytest.raises(SystemExit, match="version 1 was changed"):
        exec(lines, {})  # noqa: S102 - our own page
    assert not ran.exists()
    subprocess.run([sys.executable, "-c", f"import mlflow; mlflow.pyfunc.load_model({champion!r})"], check=True)
    assert ran.exists()


def write(folder: Path, contents: Mapping[str, str | bytes | None]) -> None:
    for name, content in contents.items():
        (folder / name).parent.mkdir(exist_ok=True)
        if content is None:
            (folder / name).unlink()
        else:
            (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
