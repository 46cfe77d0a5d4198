"""Which parts each ``finetune.strategy`` has."""

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
