"""``litert_converter.py PROGRAM OUT [CALIBRATION]``: a torch.export program to LiteRT, where its packages are.

CALIBRATION is an array [N, C, H, W] whose activations set the ranges of an int8 file. It imports nothing of Reflux.
"""

import sys

import litert_torch
import numpy as np
import torch
from ai_edge_quantizer import calibrator, qtyping, quantizer, recipe, recipe_manager
from ai_edge_quantizer.algorithm_manager import AlgorithmName
from ai_edge_quantizer.utils.qsv_utils import min_max_update
from torch import Tensor, nn

_SIGNATURE = "serving_default"


class _Named(nn.Module):
    """A program whose input has a name, which the converter takes from a keyword."""

    def __init__(self, program: nn.Module) -> None:
        super().__init__()
        self.program = program

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.program(pixels)
        return logits


def main(program: str, out: str, calibration: str | None = None) -> None:
    """Convert, and quantize if there are images: weights with a scale for each output channel, logits in floats.

    Ranges are the extremes over the images. The quantizer's own are a moving average that begins with the first image,
    and clip: logits of a network with random weights were three times as far off.
    """
    exported = torch.export.load(program)
    (pixels,) = exported.example_inputs[0]
    model = litert_torch.convert(_Named(exported.module()), sample_kwargs={"pixels": torch.zeros_like(pixels)})
    model.export(out)
    if calibration is None:
        return
    work = quantizer.Quantizer(out, recipe.static_wi8_ai8())
    for operator in (qtyping.TFLOperationName.FULLY_CONNECTED, qtyping.TFLOperationName.OUTPUT):
        work.update_quantization_recipe(regex=".*", operation_name=operator, algorithm_key=AlgorithmName.NO_QUANTIZE)
    manager = recipe_manager.RecipeManager()
    manager.load_quantization_recipe(work.get_quantization_recipe())
    ranges = calibrator.Calibrator(out, qsv_update_func=min_max_update)
    ranges.calibrate({_SIGNATURE: [{"pixels": image[None]} for image in np.load(calibration)]}, manager)
    work.quantize(ranges.get_model_qsvs()).export_model(out, overwrite=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
