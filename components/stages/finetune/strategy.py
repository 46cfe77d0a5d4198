"""Which parts each ``finetune.strategy`` has."""

import math

from reflux.components.core.errors import UserError

PROBED = ("feature-extraction", "lp-ft")  # the head alone is trained first, on features
TRAINED = ("full", "lp-ft", "gradual-unfreezing", "lora")  # the network is trained


_VALIDATIONS = 15


def epochs_between_validations(epochs: int) -> int:
    """The epochs from one validation to the next: one, or more if that would make over 15 validations.

    Frequent validation on few images finds a lucky moment: a teacher of 100 images of Fashion-MNIST, validated on 25
    after each of 60 epochs, kept the weights of epoch 14, which get 64.6 % of the test images; the last get 72.1.
    """
    return math.ceil(epochs / _VALIDATIONS)


def in_effect(strategy: str, when: str) -> str:
    """The strategy that a teacher is trained by.

    With ``distill.when: joint`` the student transfers while it is distilled, and a teacher that is to be trained keeps
    its pretrained features and gets a head.

    Args:
        strategy: ``finetune.strategy``.
        when: ``distill.when``.
    """
    return "feature-extraction" if when == "joint" and strategy != "none" else strategy


def learns_from_unlabeled(rounds: int, adaptation: str) -> bool:
    """Whether unlabeled images teach the teacher, by ``finetune.rounds`` or ``finetune.adaptation``."""
    return rounds > 1 or adaptation != "none"


def refuse_no_labels(strategy: str, labeled: int) -> None:
    """Refuse to train a teacher where no training image has a label.

    Args:
        strategy: ``finetune.strategy``.
        labeled: the number of labeled training images.

    Raises:
        UserError: there are none, and the strategy trains.
    """
    if strategy != "none" and not labeled:
        raise UserError(
            f"finetune.strategy = {strategy} learns labels, and no training image has one: label some, or take a "
            "finished teacher with finetune.strategy = none, such as one that knows the classes by name "
            "(pretrain.mode = zero-shot)."
        )


def refuse_nothing_to_learn_from(rounds: int, adaptation: str, unlabeled: int) -> None:
    """Refuse ``finetune.rounds`` above 1 and ``finetune.adaptation`` for a dataset without unlabeled images.

    Raises:
        UserError: there are none.
    """
    if learns_from_unlabeled(rounds, adaptation) and not unlabeled:
        name, value, none = ("rounds", rounds, "1") if rounds > 1 else ("adaptation", adaptation, "none")
        raise UserError(
            f"finetune.{name} = {value} teaches the teacher by unlabeled images, and the dataset has none: add some "
            f"(a folder or file named unlabeled), or set finetune.{name} to {none}."
        )
