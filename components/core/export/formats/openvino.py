"""OpenVINO models, for processors of Intel's kind: the two files of one in a ZIP archive."""

import io
import json
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reflux.components.core.data.shards import Pixels
    from reflux.components.core.export.program import Source

REQUIREMENTS = ("numpy", "openvino")
_FILE = "model.zip"
_PARTS = ("student.xml", "student.bin")
# By default it computes in bfloat16 where the processor can.
_SETTINGS = {"INFERENCE_PRECISION_HINT": "f32"}


def make(source: "Source", calibration: "Pixels | None") -> bytes:
    """Make an archive of ``student.xml`` and ``student.bin`` from the ONNX file.

    The class names are ``classes`` (JSON) of the XML's ``rt_info``. An int8 model has the ranges of the int8 ONNX file,
    so that no second quantizer (nncf) is needed.
    """
    import openvino

    from reflux.components.core.export.formats import onnx

    model = openvino.Core().read_model(onnx.make(source, calibration))
    model.set_rt_info(json.dumps(source.student.spec.classes), "classes")
    for number, operator in enumerate(model.get_ordered_ops()):  # its own names count on through a process
        operator.set_friendly_name(str(number))
    buffer = io.BytesIO()
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(buffer, "w") as archive:
        openvino.save_model(model, Path(folder, _PARTS[0]), compress_to_fp16=False)
        for name in _PARTS:
            part = zipfile.ZipInfo(name)  # of no date: the same student gives the same file
            archive.writestr(part, Path(folder, name).read_bytes(), zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def load(path: Path, threads: int) -> tuple[Callable[..., Any], str, list[int | str]]:
    """Open an archive."""
    import openvino

    with zipfile.ZipFile(path) as archive:
        xml, weights = (archive.read(name) for name in _PARTS)
    core, settings = openvino.Core(), _SETTINGS | ({"INFERENCE_NUM_THREADS": threads} if threads else {})
    model = core.compile_model(core.read_model(xml, weights), "CPU", settings)
    (pixels,) = model.inputs
    shape = [size.get_length() if size.is_static else "batch" for size in pixels.partial_shape]
    return lambda images: model(images)[0].copy(), pixels.element_type.to_dtype().name, shape


class _Served:
    """The model as MLflow's pyfunc wants it."""

    def __init__(self, folder: str) -> None:
        self._run, _, _ = load(Path(folder, _FILE), threads=0)

    def predict(self, pixels: Any, params: Any = None) -> dict[str, Any]:
        return {"logits": self._run(pixels)}


_load_pyfunc = _Served
