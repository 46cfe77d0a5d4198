"""A project with a loss and a network of its own, as the page says, through one run of the pipeline."""

import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from reflux.components.core.artifacts import read_json
from tests.e2e.command import reflux
from tests.workspaces import ROOT, make_tiny_project

pytestmark = pytest.mark.long

PAGE = (ROOT / "infra/docs/pages/how-to/own-loss.md").read_text(encoding="utf-8")
CHOICES = ("distill.method=[kd, {name: cosine, power: 2, weight: 5}]", "student.model=mine")


@pytest.fixture(scope="module")
def project(tmp_path_factory, mlflow_template) -> Path:
    folder = make_tiny_project(tmp_path_factory.mktemp("extensions") / "shapes")
    (folder / "mlflow.db").write_bytes(mlflow_template.read_bytes())
    for name, text in re.findall(r"^```python\n# (\S+)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    done = reflux(folder, "run", *(word for choice in CHOICES for word in ("-S", choice)))
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_the_loss_and_the_network_are_those_of_the_project(project):
    history = pq.read_table(project / "artifacts/distill/history.parquet").to_pydict()
    assert history["train_cosine"][-1] < history["train_cosine"][0]
    assert read_json(project / "artifacts/promote/decision.json")["version"] == 1
    found = reflux(project, "doctor").stdout
    assert "extensions/losses/cosine.py" in found
    assert "extensions/networks/mine.py" in found


def test_a_change_of_the_loss_computes_again_what_it_decides(project):
    with (project / "extensions/losses/cosine.py").open("a") as file:
        file.write("# edited\n")
    lines = {line.split()[0]: " ".join(line.split()) for line in reflux(project, "plan").stdout.splitlines() if line}
    assert lines["distill"].startswith("distill computed code in extensions/losses/cosine.py")
    assert lines["control"].startswith("control unchanged")
    assert lines["label"].startswith("label unchanged")
