"""Seconds of a run on this machine, as the rules of a plan count them."""

from collections.abc import Mapping
from dataclasses import dataclass

from reflux.components.core.params.sections import Params
from reflux.components.plan.times import Speeds, run_seconds, stage_seconds

VALIDATIONS = 15  # of the student's training run


@dataclass(frozen=True)
class Pace:
    """Seconds of a run's parts, with student and control trained at the same time.

    Attributes:
        fixed: of everything that is not listed below.
        fine_tuning: an image in an epoch of the teacher, with its share of the validation.
        labeling: a view that the teacher labels.
        learning: a view that student and control learn from, at the same time.
    """

    fixed: float
    fine_tuning: float
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
        two = least.model_copy(update={"finetune": least.finetune.model_copy(update={"epochs": 2})})
        once, twice = (stage_seconds(each, counts, speeds) for each in (least, two))
        epoch = twice["finetune"] - once["finetune"]
        labeling = speeds["student view"] + speeds["teacher inference"]
        learning = speeds["student view"] + speeds["student training"]
        counted = (counts["train"] + counts["unlabeled"]) * labeling
        counted += VALIDATIONS * params.student.batch_size * learning
        fixed = max(0.0, run_seconds(once) - epoch - counted)
        return cls(fixed, epoch / max(1, counts["train"]), labeling, learning)
