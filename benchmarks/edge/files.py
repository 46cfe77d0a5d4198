"""The files of a network that are compared: those that ship, and what onnxruntime makes of it by other choices."""

from collections.abc import Iterable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import onnx
import torch
from onnxruntime.quantization import QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from reflux.components.core import contract
from reflux.components.core.data.shards import Pixels
from reflux.components.core.export import program
from reflux.components.core.export.network import MODULES
from reflux.components.modalities.image import quantize
from reflux.components.modalities.image.models.pixel_model import PixelModel

FILES = {"onnx": "ONNX, fp32", "int8": "ONNX, int8", "defaults": "ONNX, int8, defaults"}
FILES |= {"int4": "ONNX, int4 weights", "pt2": "torch.export, fp32"}
OTHER_RUNTIMES = {kind: file for kind, file in contract.FILES.items() if file.format.extra}


def write_files(model: PixelModel, calibration: Pixels, folder: Path, others: Iterable[str] = ()) -> dict[str, Path]:
    """Write a model as each of ``FILES``, and as ``others`` of ``OTHER_RUNTIMES``, by their names for people."""
    source = program.Source(model.eval())
    translated = source.translated
    ready, defaults, int4 = (folder / f"{name}.onnx" for name in ("ready", "defaults-whole", "int4-whole"))
    onnx.save(translated, ready)
    quant_pre_process(ready, ready, skip_optimization=True, skip_symbolic_shape=True)
    quantize_static(ready, defaults, quantize.Batches(calibration))
    quantize_static(
        ready,
        int4,
        quantize.Batches(calibration),
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt4,
        extra_options={"OpTypesToExcludeOutputQuantization": ["Gemm"]},
    )
    models = {"onnx": translated, "int8": quantize.int8(translated, calibration), "defaults": onnx.load(defaults)}
    models["int4"] = onnx.load(int4)
    paths = {kind: folder / f"{kind}.onnx" for kind in models} | {"pt2": folder / "student.pt2"}
    for kind, each in models.items():
        onnx.save(program.slim(each, model.spec.classes), paths[kind])
    torch.export.save(source.exported, paths["pt2"])
    files = {FILES[kind]: path for kind, path in paths.items()}
    for kind in others:
        file = OTHER_RUNTIMES[kind]
        files[file.label] = path = folder / Path(file.name).name
        path.write_bytes(MODULES[path.suffix].make(source, calibration if file.precision == "int8" else None))
    return files


def installed() -> list[str]:
    """Those of ``OTHER_RUNTIMES`` that can be run here."""
    kinds = []
    for kind, file in OTHER_RUNTIMES.items():
        with suppress(PackageNotFoundError):
            version(file.format.runtime)
            kinds.append(kind)
    return kinds
