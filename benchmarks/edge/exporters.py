"""What other tools make of the same networks: Ultralytics' and optimum's ONNX files, fp32 and int8, in onnxruntime.

    .venv/bin/python -m benchmarks.edge.exporters                 # after `reflux run`: its student
    .venv/bin/python -m benchmarks.edge.exporters --run CHECKOUT  # the student of another checkout's last run

The networks, images and times are those of ``benchmarks.edge``. Each tool is asked as its documentation says, takes the
same raw pixels, and calibrates on the same images:

- ``Ultralytics``: ``ultralytics.utils.export.torch2onnx``, which takes any network of PyTorch, and its
  ``onnx_int8_quantize``;
- ``optimum``: its ONNX exporter with the configuration for timm's networks, and ``ORTQuantizer`` with
  ``AutoQuantizationConfig.avx512_vnni``.

Both are optional: ``pip install ultralytics`` (AGPL-3.0) and ``pip install 'optimum-onnx[onnxruntime]'``, which asks
for a release of transformers before 4.58, so that it may want an environment of its own. What is not installed is left
out, with a line that says so. It prints the table and writes ``benchmarks/results/exporters.json``.
"""

import copy
import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import onnx
import torch
from onnxruntime.quantization import CalibrationMethod

from benchmarks.edge import files
from benchmarks.edge.command import run_benchmark
from benchmarks.edge.report import table
from benchmarks.harness.results import read
from reflux.components.core.data.shards import Pixels
from reflux.components.core.export import program
from reflux.components.modalities.image import quantize
from reflux.components.modalities.image.models.pixel_model import PixelModel

OURS = {"fp32": files.FILES["onnx"], "int8": files.FILES["int8"]}
OPSET = 18  # best_onnx_opset of Ultralytics for torch 2.4 and later


def ours(model: PixelModel, calibration: Pixels, folder: Path) -> dict[str, Path]:
    """The files that ``compress`` makes."""
    translated = program.Source(model).translated
    models = {"fp32": translated, "int8": quantize.int8(translated, calibration)}
    paths = {OURS[precision]: folder / f"ours-{precision}.onnx" for precision in models}
    for path, each in zip(paths.values(), models.values(), strict=True):
        onnx.save(program.slim(each, model.spec.classes), path)
    return paths


def ultralytics(model: PixelModel, calibration: Pixels, folder: Path) -> dict[str, Path]:
    """Ultralytics' files."""
    os.environ["YOLO_OFFLINE"] = "true"  # it would look for a network when it is imported
    from ultralytics.utils.export import torch2onnx
    from ultralytics.utils.export.onnx import onnx_int8_quantize

    fp32, int8 = folder / "ultralytics.onnx", folder / "ultralytics-int8.onnx"
    ports = {program.INPUT: {0: "batch"}, program.OUTPUT: {0: "batch"}}
    names = {"input_names": [program.INPUT], "output_names": [program.OUTPUT], "dynamic": ports}
    torch2onnx(model, _example(model), fp32, opset=OPSET, **names)
    images = [calibration[row : row + 1] for row in range(len(calibration))]
    onnx_int8_quantize(fp32, int8, images, lambda image: image, input_name=program.INPUT)
    return {"Ultralytics, fp32": fp32, "Ultralytics, int8": int8}


def optimum(model: PixelModel, calibration: Pixels, folder: Path) -> dict[str, Path]:
    """optimum's files."""
    from optimum.exporters.onnx import export
    from optimum.exporters.onnx.model_configs import TimmDefaultOnnxConfig
    from optimum.onnxruntime import AutoQuantizationConfig, CalibrationConfig, ORTQuantizer
    from transformers import PretrainedConfig

    class RawPixels(TimmDefaultOnnxConfig):
        """The one for timm's networks, of raw pixels in place of floats."""

        inputs = property(lambda _: {program.INPUT: {0: "batch"}})
        outputs = property(lambda _: {program.OUTPUT: {0: "batch"}})
        torch_to_onnx_input_map = property(lambda _: {})

        def generate_dummy_inputs(self, **_: object) -> dict[str, torch.Tensor]:
            return {program.INPUT: _example(model)}

        def rename_ambiguous_inputs(self, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            return inputs

    config: Any = PretrainedConfig()  # the exporter notes its choices in it
    network = copy.deepcopy(model)
    network.config = config
    fp32 = folder / "optimum.onnx"
    export(network, RawPixels(config, task="image-classification"), fp32, opset=OPSET)
    quantizer = ORTQuantizer(fp32, config)
    choice = AutoQuantizationConfig.avx512_vnni(is_static=True)
    ranges = quantizer.fit(
        [{program.INPUT: image} for image in calibration],
        CalibrationConfig("images", "default", "train", len(calibration), CalibrationMethod.MinMax),
        folder / "augmented.onnx",
        choice.operators_to_quantize,
    )
    quantizer.quantize(choice, folder, "int8", calibration_tensors_range=ranges)
    return {"optimum, fp32": fp32, "optimum, int8": folder / "optimum_int8.onnx"}


TOOLS: dict[str, Callable[[PixelModel, Pixels, Path], dict[str, Path]]] = {
    "ultralytics": ultralytics,
    "optimum": optimum,
}
FILES = (*OURS.values(), *(f"{tool}, {precision}" for tool in ("Ultralytics", "optimum") for precision in OURS))


def write_files(model: PixelModel, calibration: Pixels, folder: Path) -> dict[str, Path]:
    """The files of all tools that are installed, by their names for people."""
    paths = ours(model.eval(), calibration, folder)
    for name, tool in TOOLS.items():
        if find_spec(name):
            paths |= tool(model, calibration, folder)
        else:
            print(f"{name} is not installed and is left out.", flush=True)
    return paths


def section(folder: Path) -> str:
    """The page's table from the results in a folder, as Markdown."""
    return table(read("exporters", folder), FILES)


def _example(model: PixelModel) -> torch.Tensor:
    size = model.spec.image_size
    return torch.zeros(1, model.spec.in_chans, size, size, dtype=torch.uint8)


if __name__ == "__main__":
    run_benchmark("exporters", __doc__, write_files, section)
