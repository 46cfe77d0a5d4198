"""What the benchmark of other exporters measures: files of each tool that is there, which answer alike."""

import numpy as np
import pytest

from benchmarks.edge import exporters
from benchmarks.edge.files import FILES
from reflux.components.core.export.network import load
from reflux.components.modalities.image.models.pixel_model import PixelModel, pixel_model

PIXELS = np.random.default_rng(0).integers(0, 256, (8, 1, 12, 12), dtype=np.uint8)


@pytest.fixture
def model() -> PixelModel:
    return pixel_model("resnet8_tiny", ("a", "b"), 12, 1, [0.3], [0.2]).eval()


def test_a_tool_that_is_not_installed_is_left_out_with_a_line(model, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(exporters, "TOOLS", {"no_such_tool": exporters.ultralytics})
    files = exporters.write_files(model, PIXELS, tmp_path)
    assert list(files) == list(exporters.OURS.values()) == [FILES["onnx"], FILES["int8"]]
    assert all(path.is_file() for path in files.values())
    assert capsys.readouterr().out == "no_such_tool is not installed and is left out.\n"


@pytest.mark.long
@pytest.mark.parametrize("name", exporters.TOOLS)
def test_a_tool_writes_the_same_network_and_quantizes_it(name, model, tmp_path):
    pytest.importorskip(name, reason=f"it needs {name}")
    ours = load(next(iter(exporters.ours(model, PIXELS, tmp_path).values()))).run(PIXELS)
    fp32, int8 = exporters.TOOLS[name](model, PIXELS, tmp_path).items()
    assert {fp32[0], int8[0]} < set(exporters.FILES)
    assert np.allclose(load(fp32[1]).run(PIXELS), ours, atol=1e-5)
    assert 0 < np.abs(load(int8[1]).run(PIXELS) - ours).max() < 0.5
    assert int8[1].stat().st_size < fp32[1].stat().st_size
