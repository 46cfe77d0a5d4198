import os
import shutil
from pathlib import Path

import pytest
from hypothesis import settings

# Set before torch is imported: threads that wait for each other make small tests slow on a busy machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")

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


@pytest.fixture
def mlflow_home(tmp_path, monkeypatch, mlflow_template) -> Path:
    """An empty working folder with its own MLflow database."""
    shutil.copy(mlflow_template, tmp_path / "mlflow.db")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    return tmp_path
