"""Which parts each ``finetune.strategy`` has."""

from components.core.errors import UserError

PROBED = ("feature-extraction", "lp-ft")  # the head alone is trained first, on features
TRAINED = ("full", "lp-ft", "gradual-unfreezing", "lora")  # the network is trained


def in_effect(strategy: str, when: str) -> str:
    """The strategy that a teacher is trained by.

    With ``distill.when: joint`` the student transfers while it is distilled, and a teacher that is to be trained keeps
    its pretrained features and gets a head.

    Args:
        strategy: ``finetune.strategy``.
        when: ``distill.when``.
    """
    return "feature-extraction" if when == "joint" and strategy != "none" else strategy


def refuse_nothing_to_learn_from(rounds: int, unlabeled: int) -> None:
    """Refuse ``finetune.rounds`` above 1 for a dataset without unlabeled images, from which later rounds learn.

    Raises:
        UserError: there are none.
    """
    if rounds > 1 and not unlabeled:
        raise UserError(
            f"finetune.rounds = {rounds} teaches the teacher by unlabeled images, and the dataset has none: add some "
            "(a folder or file named unlabeled), or set finetune.rounds to 1."
        )
