"""The public API: what extensions, scripts and services may build on.

Its names follow semantic versioning: none is removed or changes its meaning without a new major release. Every other
module of Reflux may change in any release. A name is imported when it is first used, so that a script that classifies
images imports nothing that trains.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reflux.components.core.errors import UserError
    from reflux.components.core.models.precision import single_precision
    from reflux.components.core.models.small_nets import SmallNet, conv_bn, network
    from reflux.components.core.params.distill import LayerLoss, Loss
    from reflux.components.core.params.file import load_params
    from reflux.components.core.params.sections import Params
    from reflux.components.distill.losses.register import loss
    from reflux.components.registry.predict import Prediction, Unreadable, predict

MODULES = {  # by name; below ``reflux.components``
    # Extensions: losses.
    "loss": "distill.losses.register",
    "Loss": "core.params.distill",
    "LayerLoss": "core.params.distill",
    "single_precision": "core.models.precision",
    # Extensions: networks.
    "network": "core.models.small_nets",
    "SmallNet": "core.models.small_nets",
    "conv_bn": "core.models.small_nets",
    # Scripts.
    "load_params": "core.params.file",
    "Params": "core.params.sections",
    "predict": "registry.predict",
    "Prediction": "registry.predict",
    "Unreadable": "registry.predict",
    # Both.
    "UserError": "core.errors",
}

__all__ = [
    "LayerLoss",
    "Loss",
    "Params",
    "Prediction",
    "SmallNet",
    "Unreadable",
    "UserError",
    "conv_bn",
    "load_params",
    "loss",
    "network",
    "predict",
    "single_precision",
]


def __getattr__(name: str) -> Any:
    if name not in MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"reflux.components.{MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
