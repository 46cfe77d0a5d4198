"""LiteRT files (once TensorFlow Lite), for phones and boards."""

import io
import json
import os
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from reflux.components.core.data.shards import Pixels
    from reflux.components.core.export.program import Source

REQUIREMENTS = ("numpy", "ai-edge-litert")
CLASSES = "classes.json"
_FILE = "model.tflite"


def make(source: "Source", calibration: "Pixels | None") -> bytes:
    """Make a file for one image, with the class names in ``classes.json``.

    LiteRT's metadata have such files in a ZIP archive that follows the model, which ``unzip`` reads, too.

    Raises:
        UserError: the converter can't be installed.
        ValueError: it can't convert the network.
    """
    import torch

    from reflux.components.core.export import converters
    from reflux.components.core.export.litert_packages import PACKAGES
    from reflux.components.core.export.program import export

    with tempfile.TemporaryDirectory() as folder:
        program, out, images = (Path(folder, name) for name in ("student.pt2", _FILE, "calibration.npy"))
        torch.export.save(export(source.student, batch=1), program)
        arguments = [str(program), str(out)]
        if calibration is not None:
            np.save(images, calibration)
            arguments.append(str(images))
        script = Path(__file__).parents[1] / "litert_converter.py"
        converters.convert("LiteRT", PACKAGES, script, arguments)
        buffer = io.BytesIO(out.read_bytes())
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr(zipfile.ZipInfo(CLASSES), json.dumps(source.student.spec.classes))
    return buffer.getvalue()


@contextmanager
def _without_stderr() -> Iterator[None]:
    """Silence what LiteRT's C++ reports of its kernels."""
    sys.stderr.flush()
    kept, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(null)


def load(path: Path, threads: int) -> tuple[Callable[..., Any], str, list[int | str]]:
    """Open a file."""
    from ai_edge_litert.interpreter import Interpreter

    with _without_stderr():
        interpreter = Interpreter(str(path), num_threads=threads or None)
        interpreter.allocate_tensors()
    (takes,), (gives,) = interpreter.get_input_details(), interpreter.get_output_details()

    def run(images: Any) -> Any:
        rows = []
        for image in images:
            interpreter.set_tensor(takes["index"], image[None])
            interpreter.invoke()
            rows.append(interpreter.get_tensor(gives["index"]))
        return np.concatenate(rows)

    return run, np.dtype(takes["dtype"]).name, takes["shape"].tolist()


class _Served:
    """The model as MLflow's pyfunc wants it."""

    def __init__(self, folder: str) -> None:
        self._run, _, _ = load(Path(folder, _FILE), threads=0)

    def predict(self, pixels: Any, params: Any = None) -> dict[str, Any]:
        return {"logits": self._run(pixels)}


_load_pyfunc = _Served
