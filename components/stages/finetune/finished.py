"""A finished teacher, which ``finetune.strategy: none`` uses unchanged."""

from collections.abc import Sequence

from reflux.components.core.errors import UserError
from reflux.components.modalities.image.models.pixel_model import ModelSpec, check_channels


def check_finished(spec: ModelSpec, classes: Sequence[str], channels: int, weights: str) -> None:
    """Refuse a teacher that was trained for other classes or channels than the dataset's.

    Args:
        spec: the teacher's.
        classes: of the dataset, in its order.
        channels: of the dataset's images.
        weights: ``pretrain.weights``, for the message.

    Raises:
        UserError: it was.
    """
    check_channels(spec, channels)
    if spec.classes == tuple(classes):
        return
    if len(spec.classes) != len(classes):
        differs = f"has {len(spec.classes):,} classes and the dataset has {len(classes):,}"
    else:
        own, other = next(pair for pair in zip(spec.classes, classes, strict=True) if pair[0] != pair[1])
        differs = f"was trained for class {own!r} where the dataset has {other!r}"
    raise UserError(
        f"finetune.strategy = none uses a finished teacher unchanged, and pretrain.weights = {weights} {differs}: "
        "choose another strategy, such as full, or a teacher of these classes."
    )


def check_origin(spec: ModelSpec | None, channels: int, weights: str) -> None:
    """Refuse a checkpoint file that can't be a finished teacher, before the dataset's classes are known.

    Args:
        spec: in the file; None for a file that was not written by Reflux.
        channels: of the dataset's images.
        weights: ``pretrain.weights``, for the message.

    Raises:
        UserError: it does not say which classes it knows, or takes other images.
    """
    if spec is None:
        raise UserError(
            f"finetune.strategy = none uses a finished teacher unchanged, and pretrain.weights = {weights} does not "
            "say which classes it knows, as it was not written by Reflux: choose another strategy, such as full."
        )
    check_channels(spec, channels)
