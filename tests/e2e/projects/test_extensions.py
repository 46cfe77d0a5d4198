"""A project with an extension of each kind, as the pages say, through one run of the pipeline."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from reflux.components.core.artifacts import read_json
from reflux.components.core.params.extensions import EXTENDED
from tests.e2e.command import reflux
from tests.receiver import Receiver
from tests.workspaces import ROOT, pack

pytestmark = pytest.mark.long

PAGES = "".join(
    (ROOT / f"infra/docs/pages/how-to/{name}.md").read_text(encoding="utf-8") for name in ("own-loss", "extensions")
)
FILES = dict(re.findall(r"^```python\n# (\S+)\n(.*?)^```", PAGES, re.MULTILINE | re.DOTALL))
CHOICES = (
    "distill.method=[kd, {name: cosine, power: 2, weight: 5}]",
    "student.model=mine",
    "ingest.source=data/shapes.npz",
    "student.augment.invert=0.1",
    "registry.gates.top2_accuracy.min=0.4",
)


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.close()


@pytest.fixture(scope="module")
def project(tmp_path_factory, tiny_project, receiver) -> Iterator[Path]:
    folder = tiny_project(tmp_path_factory.mktemp("extensions") / "shapes")
    pack(folder / "data/shapes")
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TEAMS_WEBHOOK_URL", f"http://127.0.0.1:{receiver.port}/")
        done = reflux(folder, "run", *(word for choice in CHOICES for word in ("-S", choice)))
        assert done.returncode == 0, done.stdout + done.stderr
        yield folder


def test_the_project_has_one_of_each_kind(project):
    assert {Path(name).parent.name for name in FILES} == set(EXTENDED)
    found = " ".join(reflux(project, "doctor").stdout.split())
    assert [name for name in FILES if name not in found.replace(" ", "")] == []


def test_the_loss_and_the_network_are_those_of_the_project(project):
    history = pq.read_table(project / "artifacts/distill/history.parquet").to_pydict()
    assert history["train_cosine"][-1] < history["train_cosine"][0]
    assert read_json(project / "artifacts/promote/decision.json")["version"] == 1


def test_the_data_is_read_and_checked_by_the_project(project):
    assert read_json(project / "artifacts/ingest/dataset.json")["source"] == "data/shapes.npz"
    findings = {each["name"]: each for each in read_json(project / "artifacts/validate/result.json")["expectations"]}
    assert findings["wide_enough"]["success"] is False
    assert findings["wide_enough"]["rows"][0].endswith("is 16 pixels wide")


def test_a_gate_bounds_the_figure_of_the_project(project):
    reasons = {each["gate"]: each for each in read_json(project / "artifacts/promote/decision.json")["reasons"]}
    assert reasons["top2_accuracy"]["passed"] is True
    assert reasons["top2_accuracy"]["sentence"].startswith("Accuracy of the best two guesses ")


def test_the_notifier_tells_of_the_decision_and_the_board_is_kept(project, receiver):
    ((headers, body),) = receiver.got
    assert headers["content-type"] == "application/json"
    assert json.loads(body)["text"].startswith("shapes-student version 1: ")
    assert "Speed" in reflux(project, "boards").stdout


def test_a_change_of_an_extension_computes_again_what_it_decides(project):
    for name in ("losses/cosine.py", "notifiers/teams.py", "boards/speed.py"):
        with (project / "extensions" / name).open("a") as file:
            file.write("# edited\n")
    lines = {line.split()[0]: " ".join(line.split()) for line in reflux(project, "plan").stdout.splitlines() if line}
    assert lines["distill"].startswith("distill computed code in extensions/losses/cosine.py")
    assert lines["control"].startswith("control unchanged")
    assert lines["label"].startswith("label unchanged")
