"""Distillation losses as pure functions of tensors, each with its paper's equation.

``[B]`` is a value an image, of which training minimizes the mean; ``[]`` is a loss that couples the images of a batch.
All compute in single precision, also under autocast, and are 0, with gradient 0, where student and teacher agree;
CRD, whose anchors are compared with other images too, is not.
"""

from importlib import import_module
from pkgutil import iter_modules

# A loss is known once its module is imported.
for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
