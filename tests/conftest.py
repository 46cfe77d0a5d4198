import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

# Set before torch is imported: threads that wait for each other make small tests slow on a busy machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A run in the background ignores Ctrl-C, and would hand that down to the processes that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)

# A slow or shared machine is no failure of the code.
settings.register_profile("reflux", deadline=None)
settings.load_profile("reflux")


@pytest.fixture(scope="session")
def mlflow_template(tmp_path_factory) -> Path:
    """An MLflow database whose tables exist: making them takes seconds, copying them nothing."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    folder = tmp_path_factory.mktemp("mlflow-template")
    SqlAlchemyStore(f"sqlite:///{folder}/mlflow.db", f"{folder}/artifacts")
    return folder / "mlflow.db"


@pytest.fixture(scope="session")
def prefect_api(tmp_path_factory):
    """The address of a real Prefect server, which this process speaks to as well."""
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from flows.local.prefect_server import PrefectServer

    server = PrefectServer(tmp_path_factory.mktemp("prefect"))
    try:
        server.wait()
        with temporary_settings({PREFECT_API_URL: server.api}):
            yield server.api
    finally:
        server.stop()


@pytest.fixture
def mlflow_home(tmp_path, monkeypatch, mlflow_template) -> Path:
    """An empty working folder with its own MLflow database."""
    shutil.copy(mlflow_template, tmp_path / "mlflow.db")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    return tmp_path


TINY = """
    ingest.source=data/shapes project.name=shapes registry.model_name=shapes-student ingest.image_size=16
    validate.min_per_class=5 pretrain.model=resnet20 pretrain.weights=random finetune.strategy=full
    finetune.image_size=16 finetune.epochs=8 finetune.batch_size=8 finetune.lr=0.002 finetune.freeze_batch_norm=false
    student.image_size=16 student.steps=40 student.batch_size=32 student.eval_every=20
    label.views=2 label.batch_size=64 label.proof=8 evaluate.bootstrap=100 evaluate.latency_runs=20
    registry.gates.accuracy.min=0.5 registry.gates.worst_class_recall.min=0.1 registry.gates.size_kb.max=400
    registry.gates.latency_ms_p95.max=1000
"""


@pytest.fixture(scope="session")
def make_tiny_project():
    """Writes a copy of this project whose dataset and budget are tiny, so that the whole pipeline takes seconds."""
    import numpy as np
    from PIL import Image

    from components.core.params.file import override_params

    here = Path(__file__).parents[1]

    def picture(kind: str, rng: np.random.Generator) -> Image.Image:
        x, y = np.meshgrid(np.arange(16), np.arange(16))
        shapes = {
            "flat": x * 8,
            "wave": 128 + 100 * np.sin(x * 1.2 + rng.uniform(0, 6)),
            "check": (x // 3 + y // 3) % 2 * 200,
        }
        return Image.fromarray(np.clip(shapes[kind] + rng.normal(0, 15, (16, 16)), 0, 255).astype(np.uint8))

    def make(folder: Path) -> Path:
        rng = np.random.default_rng(0)
        for name in ("components", "flows", "infra"):
            shutil.copytree(here / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        (folder / ".dvc").mkdir()
        for name in ("dvc.yaml", "params.yaml", ".gitignore", ".dvcignore", ".dvc/config", ".dvc/.gitignore"):
            shutil.copy(here / name, folder / name)
        for split, count in {"train": 20, "val": 10, "test": 20, "unlabeled": 5}.items():
            for kind in ("flat", "wave", "check"):
                home = folder / "data" / "shapes" / split / ("" if split == "unlabeled" else kind)
                home.mkdir(parents=True, exist_ok=True)
                for index in range(count):
                    picture(kind, rng).save(home / f"{kind}-{index}.png")
        override_params(TINY.split(), folder / "params.yaml")
        return folder

    return make


@pytest.fixture
def browser_page(tmp_path):
    """A page of a real browser; every address that it asked for is in its ``asked``."""
    from benchmarks import browser

    if browser.installed() is None:
        pytest.skip("NO BROWSER: install Debian's chromium to see whether the boards render")
    with browser.opened(tmp_path / "profile") as page:
        page.asked = []
        page.on("request", lambda request: page.asked.append(request.url))
        yield page


@pytest.fixture
def call_reflux(monkeypatch, capsys) -> Callable[..., tuple[int, str, str]]:
    """Calls the command as its entry point does; returns its exit code, stdout and stderr."""
    from flows import cli

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["reflux", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        return ended.value.code or 0, said.out, said.err

    return call
