"""From a model to what other runtimes read: ``torch.export`` programs and ONNX, with onnxruntime to run it."""

import copy
import json
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import onnxruntime
import torch
from onnx import ModelProto
from torch.export import Dim, ExportedProgram

from components.core.errors import UserError
from components.core.images.pixels import resize_pixels
from components.core.images.shards import Images, at_once
from components.core.models.pixel_model import ModelSpec, PixelModel

INPUT, OUTPUT = "pixels", "logits"
# A batch of one would be baked into the program: torch.export takes a size of 1 for a constant.
_EXAMPLE_BATCH = 2
# Logits this close are tied: two runtimes add in different orders, and either class may come out first.
_TIE = 1e-4
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"

Pixels = npt.NDArray[np.uint8]
Logits = npt.NDArray[np.float32]


def program(model: PixelModel, batch: int | None = None, shape: tuple[int, int, int] | None = None) -> ExportedProgram:
    """Export a model that takes raw pixels uint8 [N, C, H, W] and returns logits [N, classes].

    Args:
        model: is left as it is; a copy is exported, on the CPU and in eval mode.
        batch: a fixed N; None leaves it free.
        shape: C, H and W; None takes the network's own, so that no resize is in the program.
    """
    # Serialisation warns of channels-last weights, whose strides it takes for those of a part.
    model = copy.deepcopy(model).cpu().to(memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload]
    own = (model.spec.in_chans, model.spec.image_size, model.spec.image_size)
    example = torch.zeros(batch or _EXAMPLE_BATCH, *(shape or own), dtype=torch.uint8)
    shapes = None if batch else {INPUT: {0: Dim("batch")}}
    with torch.no_grad(), _quiet():
        exported = torch.export.export(model, (example,), dynamic_shapes=shapes)
    for module in exported.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                # Traces name this machine's folders: the same student would be another file elsewhere.
                node.meta.pop("stack_trace", None)
    return exported


def to_onnx(exported: ExportedProgram) -> ModelProto:
    """Translate a program of :func:`program` to ONNX, batch normalisation folded into the convolutions."""
    with _quiet():
        translated = torch.onnx.export(
            exported, input_names=[INPUT], output_names=[OUTPUT], dynamo=True, optimize=True, verbose=False
        )
    return translated.model_proto  # type: ignore[union-attr]  # None only where a file was asked for


def slim(model: ModelProto, classes: tuple[str, ...]) -> ModelProto:
    """Leave out what no runtime reads, and note the class names in logit order as metadata ``classes`` (JSON).

    Dropped are traces, doc strings, inferred shapes and node names; values get names of a letter or two. For a student
    of 44 thousand parameters that is 36 KB of 212.
    """
    graph = (small := ir.from_proto(copy.deepcopy(model))).graph  # what it reads shares its tensors
    small.metadata_props.clear()
    small.doc_string = small.producer_version = None
    ir.passes.common.ClearMetadataAndDocStringPass()(small)
    ir.passes.common.DeduplicateInitializersPass()(small)
    nodes = list(ir.traversal.RecursiveGraphIterator(graph))
    values = list(graph.initializers.values()) + [value for node in nodes for value in node.outputs]
    inner = [value for value in values if not (value.is_graph_input() or value.is_graph_output())]
    for prefix in ("\0", ""):  # first out of each other's way
        for number, value in enumerate(inner):
            value.name = prefix + _short(number)
    for node in nodes:
        node.name = None
    for value in [*inner, *graph.inputs, *graph.outputs]:
        value.metadata_props.clear()
    for value in inner:
        if not value.is_initializer():
            value.shape = value.type = None
    small.metadata_props["classes"] = json.dumps(classes)
    proto: ModelProto = ir.to_proto(small)
    for port in (*proto.graph.input, *proto.graph.output):
        for size in port.type.tensor_type.shape.dim:
            if size.HasField("dim_param"):
                size.dim_param = "batch"
    return proto


def feed(images: Pixels, spec: ModelSpec) -> Pixels:
    """Stored images [N, H, W, C] as a model's files take them: [N, in_chans, image_size, image_size]."""
    pixels = resize_pixels(images, spec.image_size)
    return np.array(np.broadcast_to(pixels, (len(pixels), spec.in_chans, *pixels.shape[2:])))


def feed_rows(images: Images, rows: npt.NDArray[np.int64], spec: ModelSpec) -> Pixels:
    """:func:`feed` of some rows of a split, of which a few lie in memory at a time."""
    size = at_once(images, max(1, len(rows)))
    parts = [feed(images[rows[begin : begin + size]], spec) for begin in range(0, len(rows), size)]
    return np.concatenate([feed(images[:0], spec), *parts])


@torch.inference_mode()
def forward(model: torch.nn.Module, pixels: Pixels) -> Logits:
    """Logits [N, classes] of raw pixels [N, C, H, W], in full precision on the CPU."""
    logits: Logits = model(torch.from_numpy(pixels)).numpy()
    return logits


def session(path: Path, threads: int = 0) -> onnxruntime.InferenceSession:
    """Open an ONNX file in onnxruntime on the CPU; 0 threads leaves their number to the runtime.

    Raises:
        UserError: the file is missing or damaged.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3  # errors; what it warns of is how it was told to run
    with _readable(path):
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def run(opened: onnxruntime.InferenceSession, pixels: Pixels) -> Logits:
    """Logits [N, classes] of raw pixels [N, C, H, W]."""
    logits: Logits = opened.run([OUTPUT], {INPUT: pixels})[0]
    return logits


def reload(path: Path) -> Callable[[Pixels], Logits]:
    """A shipped file, open in its own runtime: torch for a ``.pt2`` program, else onnxruntime.

    Raises:
        UserError: the file is missing or damaged.
    """
    if path.suffix != ".pt2":
        return partial(run, session(path))
    with _readable(path):
        return partial(forward, torch.export.load(path).module())


def disagreements(expected: Logits, logits: Logits) -> npt.NDArray[np.intp]:
    """The rows on which two runtimes of one model predict different classes, and not because two logits are tied.

    Args:
        expected: the model's logits [N, K].
        logits: the file's logits [N, K].
    """
    rows = np.arange(len(expected))
    first, second = expected.argmax(axis=1), logits.argmax(axis=1)
    return np.flatnonzero((first != second) & (expected[rows, first] - expected[rows, second] > _TIE))


def tied(logits: Logits) -> npt.NDArray[np.bool_]:
    """Whether the best two of each row of logits [N, K], K at least 2, are so close that runtimes may differ: [N]."""
    best: Logits = np.partition(logits, -2, axis=1)[:, -2:]
    close: npt.NDArray[np.bool_] = best[:, 1] - best[:, 0] <= _TIE
    return close


def _short(number: int) -> str:
    """A number as few characters: 0, 1, … z, 10, …"""
    digits = ""
    while number >= len(_DIGITS):
        number, last = divmod(number, len(_DIGITS))
        digits = _DIGITS[last] + digits
    return _DIGITS[number] + digits


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # neither runtime's errors share a base but this
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path} can't be read ({first}): run `reflux run` to compress again.") from error


class _quiet(warnings.catch_warnings):
    """Without the deprecations that the exporter earns inside torch itself."""

    def __enter__(self) -> None:
        super().__enter__()
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
