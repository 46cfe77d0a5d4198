"""A teacher's logits and features, computed once for all methods."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from benchmarks.harness.training import CPU
from benchmarks.methods.training import AUGMENT, Indices
from reflux.components.core.data.shards import Shard
from reflux.components.modalities.image.layers import Layer, teacher_outputs
from reflux.components.modalities.image.models.pixel_model import PixelModel
from reflux.components.modalities.image.views.mixing import Views


class TeacherOutputs:
    """A teacher's logits and features of the first views of every image: computed once, kept in files as float16.

    Args:
        teacher: in eval mode.
        layers: those that any method compares.
        images: the images.
        views: how many views of each.
        seed: of the views.
        folder: of the files.
    """

    def __init__(
        self, teacher: PixelModel, layers: Sequence[Layer], images: Shard, views: int, seed: int, folder: Path
    ) -> None:
        rendered, self._images = Views(images, seed, AUGMENT), len(images)
        self._files: list[npt.NDArray[np.float16]] = []
        self._names = ["logits", *map(str, layers)]
        for rows in np.array_split(np.arange(views * len(images)), -(-views * len(images) // 500)):
            pixels = rendered.pixels(rows % len(images), rows // len(images), CPU)
            outputs = teacher_outputs(teacher, layers, pixels, CPU)
            if not self._files:
                self._files = [
                    np.lib.format.open_memmap(
                        folder / f"{number}.npy", "w+", np.float16, (views * len(images), *output.shape[1:])
                    )
                    for number, output in enumerate(outputs)
                ]
            for file, output in zip(self._files, outputs, strict=True):
                file[rows] = output.half().numpy()

    def read(self, indices: Indices, views: Indices, layers: Sequence[Layer]) -> tuple[Tensor, ...]:
        """The logits, and the features of some layers, of views [B] of images [B], as float32."""
        files = (self._files[self._names.index(name)] for name in ("logits", *map(str, layers)))
        return tuple(torch.from_numpy(file[views * self._images + indices]).float() for file in files)
