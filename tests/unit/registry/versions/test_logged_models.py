"""How a teacher is logged; tests/integration has the rest."""

import sys

from reflux.components.registry.versions.logged_models import _pytorch_flavor


def test_the_flavor_of_a_teacher_does_without_lightning(tmp_path, monkeypatch):
    (tmp_path / "pytorch_lightning.py").write_text("raise RuntimeError('it was imported')")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("mlflow.pytorch", "mlflow.pytorch._lightning_autolog", "pytorch_lightning"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    assert _pytorch_flavor().FLAVOR_NAME == "pytorch"
    assert "pytorch_lightning" not in sys.modules
