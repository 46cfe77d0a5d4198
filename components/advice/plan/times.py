"""How long each stage takes: what it computes, from the params and the number of images, times measured speeds."""

import math
from collections.abc import Iterator, Mapping

from reflux.components.advice.plan.speed import Measurement, seconds_a_view, seconds_an_image, seconds_to_start
from reflux.components.core.contract import STEPS
from reflux.components.core.params.distill import BornAgain, DeepMutualLearning, TeacherAssistant, targets_from
from reflux.components.core.params.sections import Params
from reflux.components.core.runtime.machine import usable_cores
from reflux.components.stages.finetune.strategy import PROBED, TRAINED, epochs_between_validations, in_effect

Speeds = Mapping[str, float]

_VALIDATED_AT_ONCE = 512
_VALIDATIONS = 10  # of a network that is pretrained
_ACCURACY_ON = 500  # images of the training split, at each validation

# Seconds that a stage takes whatever its images and networks are, where a new process takes ``_START_S`` to import what
# training imports: to start (DVC and Python), and then. On an EPYC with two cores; others are faster or slower alike.
_START_S = 2.6
_STARTS_S = {
    **{"ingest": 1.7, "validate": 1.7, "pretrain": 3.8, "finetune": 3.9, "label": 2.5, "distill": 2.5},
    **{"control": 2.5, "compress": 3.0, "evaluate": 3.4, "register": 0.0, "promote": 0.0},
}
_FIXED_S = {
    **{"ingest": 1.0, "validate": 3.5, "pretrain": 1.0, "finetune": 1.0, "label": 1.5, "distill": 1.5},
    **{"control": 1.5, "compress": 4.5, "evaluate": 10.0, "register": 6.0, "promote": 2.0},
}
_OTHER_STAGE_S = 2.5  # likewise, of a stage that was not timed: to start, and then
# An earlier run of another speed than this says more of what happened to it: it was resumed, or found its soft labels.
_MOST_OFF = 3.0
_RUN_S = 6.0  # Prefect's server, the checks before anything starts, and DVC's look at all stages
_INGEST_S = 0.00025  # a small image: read, decoded, hashed and written
_COMPARE_S = 2e-9  # a pair of images whose perceptual hashes are compared
_PROBE_S = 1.5e-6  # a row of features in a step of the linear probe
_CORRUPT_S = 0.0004  # a small image, in all kinds of corruption


def measurements(params: Params, classes: int, shared: bool = True) -> dict[str, Measurement]:
    """List the speeds that the times of these params follow from, by name; calling one measures it, or looks it up.

    Args:
        params: all of them.
        classes: of the dataset.
        shared: student and control train at the same time, each on half of the cores.
    """
    run, student, finetune = params.run, params.student, params.finetune
    shared = shared and not run.deterministic
    half = max(1, usable_cores() // 2) if shared else 0
    threads = {"teacher": run.threads, "student": run.threads or half}
    stored = params.ingest.image_size
    sizes = {
        "teacher": (finetune.image_size, stored, 3),
        "student": (student.image_size, stored, params.ingest.channels),
    }
    networks = {"teacher": params.pretrain.model, "student": student.model}
    networks |= {name: name for name in _assistants(params)}
    asked = {"start": Measurement(seconds_to_start)}
    for name, model in networks.items():
        role = name if name in sizes else "student"
        section = finetune if role == "teacher" else student
        frozen = role == "teacher" and finetune.freeze_batch_norm
        for training, batch_size in ((True, section.batch_size), (False, _VALIDATED_AT_ONCE)):
            in_company = role == "student" and shared
            step = (batch_size, training, run.device, threads[role], section.precision, frozen and training, in_company)
            name_of_step = f"{name} {'training' if training else 'inference'}"
            asked[name_of_step] = Measurement(seconds_an_image, (model, *sizes[role], classes, *step))
    for role, augment in (("teacher", finetune.augment), ("student", student.augment)):
        view = (stored, params.ingest.channels, augment.model_dump())
        asked[f"{role} view"] = Measurement(seconds_a_view, (*view, run.device, threads[role]))
    return asked


def measured(params: Params, classes: int, shared: bool = True) -> dict[str, float]:
    """The speeds that the times of these params follow from: kept ones, or measured now.

    Raises:
        UserError: a network is unknown or can't take such images, or the device is not there.
    """
    return {name: measure() for name, measure in measurements(params, classes, shared).items()}


def stage_seconds(
    params: Params, counts: Mapping[str, int], speeds: Speeds, experience: Mapping[str, float] | None = None
) -> dict[str, float]:
    """Seconds of every stage, and of ``register`` and ``promote``, with the start of their processes.

    Args:
        params: all of them.
        counts: images in train, val, test and unlabeled; and in ``source_domain_train``, ``pretrain_train`` and so on
            of datasets that are not the run's own, if there are any.
        speeds: seconds an image, as :func:`measured` returns them; with ``decoding`` where the images were looked at.
        experience: how much longer stages took in an earlier run than was foreseen, from :func:`experience_of`.
    """
    scale = speeds["start"] / _START_S
    seconds = _computing_seconds(params, counts, speeds)
    starts = {name: scale * _STARTS_S.get(name, _OTHER_STAGE_S) for name in STEPS}
    return {name: start + seconds[name] * (experience or {}).get(name, 1.0) for name, start in starts.items()}


def experience_of(
    params: Params, counts: Mapping[str, int], speeds: Speeds, took: Mapping[str, float]
) -> dict[str, float]:
    """How many times as long as foreseen the stages of an earlier run on this machine took.

    Args:
        params, counts: the earlier run's.
        speeds: those that its times follow from.
        took: its stages' ``wall_s``, in ``run.json``.
    """
    foreseen = _computing_seconds(params, counts, speeds)
    times = {name: seconds / foreseen[name] for name, seconds in took.items() if foreseen[name]}
    return {name: factor for name, factor in times.items() if 1 / _MOST_OFF <= factor <= _MOST_OFF}


def _computing_seconds(params: Params, counts: Mapping[str, int], speeds: Speeds) -> dict[str, float]:
    """Seconds of every step without the start of its process."""
    train, val, test, unlabeled = (counts.get(split, 0) for split in ("train", "val", "test", "unlabeled"))
    student, distill = params.student, params.distill
    teacher_s, student_s = speeds["teacher inference"], speeds["student inference"]
    images = train + unlabeled
    labels = params.views_of_each(images) * images if targets_from(distill) == "store" else 0
    visits, validations = student.steps * student.batch_size, math.ceil(student.steps / student.eval_every)
    own = {phase: steps * student.batch_size for phase, steps in params.phases.items()}
    *before, lesson = _lessons(params, speeds)
    validating = validations * (val + min(_ACCURACY_ON, train)) * student_s
    once = speeds["student view"] + speeds["student training"]
    work = {
        "ingest": sum(counts.values()) * max(_INGEST_S, speeds.get("decoding", 0.0)),
        "validate": test * (train + val) * _COMPARE_S,
        "pretrain": _pretraining(params, counts, speeds),
        "finetune": _finetuning(params, train, val, unlabeled, counts.get("source_domain_train", 0), speeds),
        "label": labels * (speeds["student view"] + teacher_s),
        "distill": sum(visits * (speeds["student view"] + each) + validating for each in before)
        + own["distill"] * (speeds["student view"] + lesson)
        + own.get("features", 0) * (once + teacher_s)
        + own.get("labels", 0) * once
        + validating,
        "control": visits * once + validating,
        "evaluate": test * (teacher_s + 10 * student_s + _CORRUPT_S),
    }
    scale = speeds["start"] / _START_S
    return {name: work.get(name, 0.0) + scale * _FIXED_S.get(name, _OTHER_STAGE_S) for name in STEPS}


def run_seconds(seconds: Mapping[str, float]) -> float:
    """Wall time of a run that computes these stages, some of which overlap, with its own start.

    The starting weights come while the data is checked, and the control is trained while the student is.

    Args:
        seconds: of each stage that is computed; the others have none.
    """
    alone = sum(taken for name, taken in seconds.items() if name not in ("validate", "pretrain", "distill", "control"))
    together = (("validate", "pretrain"), ("distill", "control"))
    return _RUN_S + alone + sum(max(seconds.get(name, 0.0) for name in pair) for pair in together)


def _pretraining(params: Params, counts: Mapping[str, int], speeds: Speeds) -> float:
    """Seconds of learning another dataset's labels, or without labels two views of an image at a time."""
    settings, seconds = params.pretrain, 0.0
    supervised = settings.dataset is not None
    prefix, views = ("pretrain_", 1) if supervised else ("", 2)
    train, val = (counts.get(f"{prefix}{split}", 0) for split in ("train", "val"))
    held_out = counts.get("pretrain_test", 0) if supervised else 0
    for role in settings.networks:
        step = views * settings.batch_size * (speeds[f"{role} view"] + speeds[f"{role} training"])
        judged = _VALIDATIONS * (val + min(_ACCURACY_ON, train)) + held_out
        seconds += settings.steps * step + judged * speeds[f"{role} inference"]
    return seconds


def _finetuning(params: Params, train: int, val: int, unlabeled: int, domain: int, speeds: Speeds) -> float:
    """Seconds of all rounds; from the second on the teacher learns from nearly all images."""
    settings, inference = params.finetune, speeds["teacher inference"]
    seconds = _round(params, train, val, domain, settings.epochs, speeds)
    more = unlabeled * inference + _round(params, train + unlabeled, val, domain, settings.round_epochs, speeds)
    return seconds + (settings.rounds - 1) * more


def _round(params: Params, images: int, val: int, domain: int, epochs: int, speeds: Speeds) -> float:
    settings = params.finetune
    strategy = in_effect(settings.strategy, params.distill.when)
    inference, seconds = speeds["teacher inference"], 0.0
    if strategy in PROBED:
        rows = settings.probe_views * (images + domain)
        seconds += rows * (speeds["teacher view"] + inference) + val * inference
        seconds += settings.probe_steps * rows * _PROBE_S
    if strategy in TRAINED:
        visits = images // (batch := max(1, min(settings.batch_size, images))) * batch
        if domain:  # as many of each, and of the unlabeled images
            batches = 2 + (settings.adaptation != "none")
            visits = max(1, (images + domain) // (2 * settings.batch_size)) * settings.batch_size * batches
        step = speeds["teacher view"] + speeds["teacher training"]
        looks = math.ceil(epochs / epochs_between_validations(epochs))
        seconds += epochs * visits * step + looks * (val + min(_ACCURACY_ON, images)) * inference
    return seconds


def _lessons(params: Params, speeds: Speeds) -> Iterator[float]:
    """Seconds an image of each training run of ``distill``, one after the other."""
    schedule, student = params.distill.schedule, speeds["student training"]
    live = speeds["teacher inference"] if targets_from(params.distill) == "teacher" else 0.0
    match schedule:
        case DeepMutualLearning():
            yield (1 + schedule.peers) * student
        case BornAgain():
            yield live + student
            for _ in range(schedule.generations - 1):
                yield speeds["student inference"] + student
        case TeacherAssistant():
            for name in schedule.assistants:
                yield live + speeds[f"{name} training"]
                live = speeds[f"{name} inference"]
            yield live + student
        case _:
            yield live + student


def _assistants(params: Params) -> tuple[str, ...]:
    schedule = params.distill.schedule
    return schedule.assistants if isinstance(schedule, TeacherAssistant) else ()
