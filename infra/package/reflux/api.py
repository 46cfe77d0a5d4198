"""The public API: what extensions, scripts and services may build on.

Its names follow semantic versioning: none is removed or changes its meaning without a new major release. Every other
module of Reflux may change in any release. A name is imported when it is first used, so that a script that classifies
images imports nothing that trains.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reflux.components.core.contract import Figure
    from reflux.components.core.errors import UserError
    from reflux.components.core.params.distill import LayerLoss, Loss
    from reflux.components.core.params.file import load_params
    from reflux.components.core.params.sections import Params
    from reflux.components.core.precision import single_precision
    from reflux.components.modalities.image.models.small_nets import SmallNet, conv_bn, network
    from reflux.components.modalities.image.views.transforms import transform
    from reflux.components.observe.boards.declared import board
    from reflux.components.observe.boards.view import Bar, Board, Images, Line, Scatter, Section
    from reflux.components.registry.predict import Model, Prediction, Unreadable, load_model, predict
    from reflux.components.registry.webhooks import Delivery, notifier
    from reflux.components.stages.distill.losses.register import loss
    from reflux.components.stages.evaluate.metrics import figure
    from reflux.components.stages.ingest.formats.register import dataset_format
    from reflux.components.stages.ingest.items import Item, Source
    from reflux.components.stages.validate.expected import expect
    from reflux.components.stages.validate.suite import Check, Expectations

MODULES = {  # by name; below ``reflux.components``
    # Extensions: losses.
    "loss": "stages.distill.losses.register",
    "Loss": "core.params.distill",
    "LayerLoss": "core.params.distill",
    "single_precision": "core.precision",
    # Extensions: networks.
    "network": "modalities.image.models.small_nets",
    "SmallNet": "modalities.image.models.small_nets",
    "conv_bn": "modalities.image.models.small_nets",
    # Extensions: figures of gates.
    "figure": "stages.evaluate.metrics",
    "Figure": "core.contract",
    # Extensions: dataset formats.
    "dataset_format": "stages.ingest.formats.register",
    "Item": "stages.ingest.items",
    "Source": "stages.ingest.items",
    # Extensions: expectations.
    "expect": "stages.validate.expected",
    "Expectations": "stages.validate.suite",
    "Check": "stages.validate.suite",
    # Extensions: transforms.
    "transform": "modalities.image.views.transforms",
    # Extensions: notifiers.
    "notifier": "registry.webhooks",
    "Delivery": "registry.webhooks",
    # Extensions: boards.
    "board": "observe.boards.declared",
    "Board": "observe.boards.view",
    "Section": "observe.boards.view",
    "Line": "observe.boards.view",
    "Bar": "observe.boards.view",
    "Scatter": "observe.boards.view",
    "Images": "observe.boards.view",
    # Scripts.
    "load_params": "core.params.file",
    "Params": "core.params.sections",
    "load_model": "registry.predict",
    "Model": "registry.predict",
    "predict": "registry.predict",
    "Prediction": "registry.predict",
    "Unreadable": "registry.predict",
    # Both.
    "UserError": "core.errors",
}

__all__ = [
    "Bar",
    "Board",
    "Check",
    "Delivery",
    "Expectations",
    "Figure",
    "Images",
    "Item",
    "LayerLoss",
    "Line",
    "Loss",
    "Model",
    "Params",
    "Prediction",
    "Scatter",
    "Section",
    "SmallNet",
    "Source",
    "Unreadable",
    "UserError",
    "board",
    "conv_bn",
    "dataset_format",
    "expect",
    "figure",
    "load_model",
    "load_params",
    "loss",
    "network",
    "notifier",
    "predict",
    "single_precision",
    "transform",
]


def __getattr__(name: str) -> Any:
    if name not in MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"reflux.components.{MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
