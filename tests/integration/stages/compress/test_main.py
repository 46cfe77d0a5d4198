"""From a trained student to the files that ship."""

import copy
import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from reflux.components.core.artifacts import sha256_file
from reflux.components.core.contract import FILES, made
from reflux.components.core.data.shards import open_shard
from reflux.components.core.errors import UserError
from reflux.components.core.export import converters, program
from reflux.components.core.export.network import MODULES, load
from reflux.components.core.params.sections import Compress
from reflux.components.modalities.image.models import pixel_model
from reflux.components.modalities.image.preprocess import fit
from reflux.components.stages.compress.__main__ import main as compress
from reflux.components.stages.compress.choice import choose
from reflux.components.stages.compress.ship import writer
from tests.trained import run_here

pytestmark = pytest.mark.slow


def test_each_file_is_the_student(finished):
    student = pixel_model.load(finished / "artifacts/distill/model.safetensors")
    test, spec = open_shard(finished / "artifacts/ingest/shards/test"), student.spec
    pixels = fit(np.array(test.images), spec.image_size, spec.in_chans)
    expected = program.forward(student, pixels)
    parity = json.loads((finished / "artifacts/compress/parity.json").read_text())
    assert list(parity) == list(made("auto"))
    for kind, file in made("auto").items():
        path = finished / "artifacts/compress" / file.name
        assert parity[kind]["size_bytes"] == path.stat().st_size
        assert parity[kind]["sha256"] == sha256_file(path)
        assert parity[kind]["n"] == 40
        run = load(path).run
        for batch in (1, 2, 5, 257):
            error = np.abs(run(pixels[:batch]) - expected[:batch]).max()
            assert error < (1e-4 if file.precision == "fp32" else 0.2 * np.ptp(expected))
    assert parity["onnx"]["max_abs_logit_difference"] < 1e-4
    assert parity["onnx"]["agreement"] == parity["pt2"]["agreement"] == 1.0


def test_compress_never_looks_at_the_test_split_and_gives_the_same_files_again(finished, here):
    shutil.rmtree(here / "artifacts/ingest/shards/test")
    run_here("compress", compress)
    for file in made("auto").values():
        first, again = (folder / "artifacts/compress" / file.name for folder in (finished, here))
        assert sha256_file(first) == sha256_file(again), file.name


@pytest.mark.parametrize(("ships", "kind"), [("onnx", "onnx"), ("onnx-int8", "onnx_int8"), ("auto", "onnx_int8")])
def test_the_file_that_ships_is_named_or_chosen_on_validation_images(here, ships, kind):
    run_here("compress", compress, f"compress.ships={ships}")
    chosen = json.loads((here / "artifacts/compress/ships.json").read_text())
    assert (chosen["kind"], chosen["file"]) == (kind, FILES[kind].name)
    assert ("on 40 validation images" in chosen["why"]) == (ships == "auto")


@pytest.mark.parametrize(("max_loss", "kind"), [(0.02, "onnx"), (0.99, "onnx_int8")])
def test_an_int8_file_that_loses_too_much_does_not_ship(finished, tmp_path, max_loss, kind):
    student = pixel_model.load(finished / "artifacts/distill/model.safetensors")
    val = open_shard(finished / "artifacts/ingest/shards/val")
    for weights in student.net.get_classifier().parameters():
        weights.data.neg_()  # it prefers what the student finds least likely
    writer(student, fit(np.array(val.images), student.spec.image_size, student.spec.in_chans))(
        "onnx_int8", tmp_path / "bad.onnx"
    )
    paths = {"onnx": finished / "artifacts/compress/student.onnx", "onnx_int8": tmp_path / "bad.onnx"}
    assert choose(Compress(ships="auto", max_loss=max_loss), paths, val).kind == kind


def test_auto_measures_the_time_where_speed_is_preferred(here):
    run_here("compress", compress, "compress.ships=auto", "compress.max_loss=0.5", "compress.prefer=fastest")
    ships = json.loads((here / "artifacts/compress/ships.json").read_text())
    middle, low, high = map(float, re.search(r"takes (\S+) \((\S+) to (\S+)\) of the fp32", ships["why"]).groups())
    assert 0 < low <= middle <= high
    assert ships["kind"] == ("onnx_int8" if high < 1 else "onnx") or high == 1


def test_no_file_appears_when_one_is_not_the_student(here):
    with pytest.raises(UserError, match=r"student\.(pt2|onnx) is not the student: its logits differ by up to"):
        run_here("compress", compress, "compress.max_logit_difference=1e-12")
    assert list((here / "artifacts/compress").iterdir()) == []


@pytest.mark.long
@pytest.mark.parametrize("kind", FILES)
def test_every_file_of_another_network_is_refused(here, monkeypatch, converters_home, kind):
    path = Path(FILES[kind].name)
    runtime = FILES[kind].format.runtime
    pytest.importorskip(runtime.replace("-", "_"), reason=f"it needs {runtime}")
    monkeypatch.setattr(converters, "HOME", converters_home)
    module, precision = MODULES[path.suffix], FILES[kind].precision

    def spoil(source, calibration):
        if ("fp32" if calibration is None else "int8") == precision:
            source = program.Source(copy.deepcopy(source.student))
            source.student.net.head.weight.data *= -1
        return module.make(source, calibration)

    monkeypatch.setitem(MODULES, path.suffix, SimpleNamespace(load=module.load, make=spoil))
    ships = "auto" if kind == "pt2" else kind.replace("_", "-")
    with pytest.raises(UserError, match=f"{path.name} is not the student"):
        run_here("compress", compress, f"compress.ships={ships}")
    assert not (here / "artifacts/compress" / FILES[kind].name).exists()


@pytest.mark.long
def test_the_file_of_another_runtime_ships_next_to_the_others(here):
    run_here("compress", compress, "compress.ships=executorch")
    assert json.loads((here / "artifacts/compress/ships.json").read_text())["file"] == "edge/student.pte"
    assert list(json.loads((here / "artifacts/compress/parity.json").read_text())) == list(made("executorch"))
    run_here("compress", compress, "compress.ships=onnx")
    edge = here / "artifacts/compress/edge"
    assert [path.name for path in edge.iterdir()] == ["classes.json"]
    assert json.loads((edge / "classes.json").read_text()) == ["dark", "middling", "bright"]
