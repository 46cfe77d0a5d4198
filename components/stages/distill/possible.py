"""What a dataset must have to distill by a method."""

from collections.abc import Sequence

from reflux.components.core.errors import UserError
from reflux.components.core.params.distill import Distill, Method, targets_from


def refuse_few_classes(method: Sequence[Method], classes: int) -> None:
    """Check that an entry of ``distill.method`` is made for so few classes.

    Raises:
        UserError: it is not.
    """
    for entry in method:
        if classes < entry.min_classes:
            raise UserError(
                f"distill.method {entry.name} needs at least {entry.min_classes} classes, and there are {classes}: "
                "take it out, or set distill.method to kd."
            )


def refuse_no_labels(distill: Distill, labeled: int) -> None:
    """Refuse to teach the student labels where none of so many training images has one.

    Raises:
        UserError: its phase or its method learns nothing else.
    """
    wanting = "method = deep-mutual-learning" if targets_from(distill) == "peers" else "finish = labels"
    if not labeled and (targets_from(distill) == "peers" or distill.finish == "labels"):
        raise UserError(f"distill.{wanting} learns labels, and no training image has one: label some, or change it.")
