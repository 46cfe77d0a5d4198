"""From a model to the files that other runtimes read: ``torch.export`` programs and ONNX."""

import copy
import json
import re
import warnings
from functools import cached_property

import onnx_ir as ir
import torch
from onnx import ModelProto
from torch import nn
from torch._ops import OpOverload
from torch.export import Dim, ExportedProgram

from reflux.components.core.data.shards import Pixels
from reflux.components.core.export.logits import Logits
from reflux.components.modalities.image.models.pixel_model import PixelModel
from reflux.components.modalities.image.models.small_nets import SmallNet

INPUT, OUTPUT = "pixels", "logits"
# A batch of one would be baked into the program: torch.export takes a size of 1 for a constant.
_EXAMPLE_BATCH = 2
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


class Source:
    """A trained student that files are made of; what several of them are made from is made once.

    Args:
        student: in eval mode.
    """

    def __init__(self, student: PixelModel) -> None:
        self.student = student

    @cached_property
    def exported(self) -> ExportedProgram:
        return export(self.student)

    @cached_property
    def translated(self) -> ModelProto:
        return to_onnx(self.exported)


def export(model: PixelModel, batch: int | None = None, shape: tuple[int, int, int] | None = None) -> ExportedProgram:
    """Export a model that takes raw pixels uint8 [N, C, H, W] and returns logits [N, classes], in its deployed form.

    Args:
        model: is left as it is; a copy is exported, on the CPU and in eval mode.
        batch: a fixed N; None leaves it free.
        shape: C, H and W; None takes the network's own, so that no resize is in the program.
    """
    # Serialization warns of channels-last weights, whose strides it takes for those of a part.
    model = copy.deepcopy(model).cpu().to(memory_format=torch.contiguous_format).eval()
    model.net = deployed(model.net)
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


def deployed(net: nn.Module) -> nn.Module:
    """Join the branches that a network has for training alone, as in MobileOne and RepVGG; ``net`` is changed."""
    if isinstance(net, SmallNet):
        return net
    from timm.utils import reparameterize_model  # more than a second, which a small student does without

    joined: nn.Module = reparameterize_model(net, inplace=True)
    return joined


def to_onnx(exported: ExportedProgram) -> ModelProto:
    """Translate a program of :func:`export` to ONNX, batch normalization folded into the convolutions."""
    with _quiet():
        translated = torch.onnx.export(
            exported, input_names=[INPUT], output_names=[OUTPUT], dynamo=True, optimize=True, verbose=False
        )
    return translated.model_proto  # type: ignore[union-attr]  # None only where a file was asked for


def operator_in(message: str, exported: ExportedProgram) -> str | None:
    """The operator that an exporter's message names, with its layer; None if it names none of the program's.

    Args:
        message: with the operator as ``aten.name`` or ``aten::name``; ``prims`` are what some of these consist of.
        exported: the program that could not be translated.
    """
    for operator in re.findall(r"\b(?:aten|prims)(?:\.|::)(\w+)", message):
        for program in (lambda: exported, exported.run_decompositions):  # as exporters do
            with _quiet():
                targets = {node: node.target for node in program().graph.nodes}
            names = {node: each._opname for node, each in targets.items() if isinstance(each, OpOverload)}
            # aten.special_bessel_j0 consists of prims.bessel_j0.
            alike = [node for node, name in names.items() if name == operator or name.endswith(f"_{operator}")]
            if alike:
                node = min(alike, key=lambda each: len(names[each]))
                path, _ = [*node.meta.get("nn_module_stack", {"": ("", "")}).values()][-1]
                return f"aten.{names[node]} in the layer {path or 'PixelModel'}"
    return None


def slim(model: ModelProto, classes: tuple[str, ...]) -> ModelProto:
    """Leave out what no runtime reads, and note the class names in logit order as metadata ``classes`` (JSON).

    It drops traces, doc strings, inferred shapes and node names; values get names of a letter or two. For a student of
    44 thousand parameters that is 36 KB of 212.
    """
    graph = (small := ir.from_proto(copy.deepcopy(model))).graph  # what it reads shares its tensors
    small.metadata_props.clear()
    small.doc_string = small.producer_version = None
    ir.passes.common.ClearMetadataAndDocStringPass()(small)
    ir.passes.common.DeduplicateInitializersPass()(small)
    nodes = list(ir.traversal.RecursiveGraphIterator(graph))
    values = list(graph.initializers.values()) + [value for node in nodes for value in node.outputs]
    inner = [value for value in values if not (value.is_graph_input() or value.is_graph_output())]
    for prefix in ("\0", ""):  # first to names that none has
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


@torch.inference_mode()
def forward(model: nn.Module, pixels: Pixels) -> Logits:
    """Logits [N, classes] of raw pixels [N, C, H, W], in full precision on the CPU."""
    logits: Logits = model(torch.from_numpy(pixels)).numpy()
    return logits


def _short(number: int) -> str:
    """A number as few characters: 0, 1, … z, 10, …"""
    digits = ""
    while number >= len(_DIGITS):
        number, last = divmod(number, len(_DIGITS))
        digits = _DIGITS[last] + digits
    return _DIGITS[number] + digits


class _quiet(warnings.catch_warnings):
    """Without the deprecations that the exporter earns inside torch itself."""

    def __enter__(self) -> None:
        super().__enter__()
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
