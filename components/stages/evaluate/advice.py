"""What usually helps where distillation did not clearly pay: words for people, by which nothing is chosen."""

import math
from collections.abc import Mapping

from reflux.components.core.params.distill import targets_from
from reflux.components.core.params.sections import Params

_HIGH = 4.0  # the temperature of Hinton et al. for targets that a teacher is sure of


def remedy(params: Params, counts: Mapping[str, int], accuracies: Mapping[str, float], teacher_leads: bool) -> str:
    """Say what usually helps, for the most likely cause, as the end of a sentence.

    Args:
        params: those of the run.
        counts: images by split.
        accuracies: on the test split, of ``teacher``, ``student`` and ``control``.
        teacher_leads: whether the teacher is measurably better than the control.
    """
    if targets_from(params.distill) == "peers":
        return "a teacher (distill.method=kd), as peers know no more than the student"
    better = "a better teacher (another pretrain.model or pretrain.weights, a larger finetune.image_size, more images)"
    shares = {name: f"{100 * value:.1f} %" for name, value in accuracies.items()}
    if not teacher_leads:
        return (
            f"{better} first, as this one ({shares['teacher']}) is not measurably better than the control "
            f"({shares['control']})"
        )
    labeled, unlabeled = counts["train"], counts.get("unlabeled", 0)
    if unlabeled < labeled:
        more = f"more unlabeled images, where most of a gain comes from ({unlabeled:,} are next to {labeled:,} labeled)"
        # A teacher answers the images that it was trained on like their labels, unless it is asked at a temperature;
        # and soft labels of few views, each visited many times, are memorized.
        return ", ".join([*_softer(params, labeled + unlabeled), more])
    if accuracies["student"] >= accuracies["teacher"]:
        return f"{better}, as the student ({shares['student']}) has caught up with this one ({shares['teacher']})"
    return f"more steps (student.steps={2 * params.student.steps}), as the student is still below its teacher"


def _softer(params: Params, images: int) -> list[str]:
    """Name the settings that keep soft labels from being memorized, as far as they are not set so."""
    distill, student = params.distill, params.student
    visits = math.ceil(student.steps * student.batch_size / images)
    temperature = _temperature(params)
    settings = []
    if temperature is not None and temperature[1] <= 1:
        settings.append(f"a higher temperature (distill.method={{name: {temperature[0]}, temperature: {_HIGH:g}}})")
    if distill.label_weight < 1:
        settings.append("more weight for the labels (distill.label_weight=1)")
    if targets_from(distill) == "store" and params.views_of_each(images) < visits:
        settings.append("views that do not repeat (label.views=auto or distill.teacher=live)")
    return settings


def _temperature(params: Params) -> tuple[str, float] | None:
    """The first loss of soft labels that has a temperature of its own, and that temperature."""
    own = () if params.distill.standardization else params.distill.losses
    named = [(loss.name, getattr(loss, "temperature", None)) for loss in own if not loss.layer_pairs]
    return next(((name, value) for name, value in named if value is not None), None)
