"""Seconds of a run on this machine, as the rules of a plan count them."""

from collections.abc import Mapping
from dataclasses import dataclass

from reflux.components.advice.plan.times import Speeds, run_seconds, stage_seconds
from reflux.components.core.params.sections import Params

VALIDATIONS = 15  # of the student's training run


@dataclass(frozen=True)
class Pace:
    """Seconds of a run's parts, with student and control trained at the same time.

    Attributes:
        fixed: of everything that is not listed below.
        fine_tuning: an image in an epoch of the teacher, with its share of the validation.
        self_training: the same of its second round, which learns from unlabeled images, too.
        labeling: a view that the teacher labels.
        learning: a view that student and control learn from, at the same time.
    """

    fixed: float
    fine_tuning: float
    self_training: float
    labeling: float
    learning: float

    @classmethod
    def of(cls, params: Params, counts: Mapping[str, int], speeds: Speeds) -> "Pace":
        """The pace of a run with these params' networks, from measured speeds."""
        least = params.model_copy(
            update={
                "student": params.student.model_copy(update={"steps": VALIDATIONS, "eval_every": 1}),
                "finetune": params.finetune.model_copy(update={"epochs": 1, "strategy": "full"}),
                "label": params.label.model_copy(update={"views": 1}),
            }
        )

        def fine_tuned(**settings: int) -> dict[str, float]:
            section = least.finetune.model_copy(update={"rounds": 1, **settings})
            return stage_seconds(least.model_copy(update={"finetune": section}), counts, speeds)

        once = fine_tuned()
        epoch = fine_tuned(epochs=2)["finetune"] - once["finetune"]
        one, two = (fine_tuned(rounds=2, round_epochs=each)["finetune"] for each in (1, 2))
        labeling = speeds["student view"] + speeds["teacher inference"]
        learning = speeds["student view"] + speeds["student training"]
        images = counts["train"] + counts["unlabeled"]
        counted = images * labeling
        counted += VALIDATIONS * params.student.batch_size * learning
        fixed = max(0.0, run_seconds(once) - epoch - counted)
        fine_tuning, self_training = epoch / max(1, counts["train"]), (two - one) / max(1, images)
        return cls(fixed, fine_tuning, self_training, labeling, learning)
