"""The sections of ``params.yaml``: frozen models that forbid unknown keys.

A default stands in for a key that ``params.yaml`` leaves out, so it decides results too: see
:mod:`reflux.components.core.runtime.installed`.
"""

import math
import re
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from reflux.components.core.params.augment import Augment, StudentAugment
from reflux.components.core.params.distill import Distill
from reflux.components.core.params.registry import Registry
from reflux.components.core.params.run import Run
from reflux.components.core.params.section import AboveZero, Fraction, NonNegative, Positive, Section, Ships
from reflux.components.core.params.tune import Tune


class Project(Section):
    name: str = Field(min_length=1)


class SplitFractions(Section):
    val: Fraction = 0.15
    test: Fraction = 0.15

    @model_validator(mode="after")
    def leaves_training_images(self) -> "SplitFractions":
        if self.val + self.test >= 1:
            raise ValueError("val + test must be below 1, or no training images are left")
        return self


class Ingest(Section):
    source: str
    image_size: Positive = 28
    channels: Literal[1, 3] = 3
    storage: Literal["auto", "decoded", "encoded"] = "auto"
    decoded_max_gb: NonNegative = 8
    split: SplitFractions = SplitFractions()
    max_quarantined: Fraction = 0.02
    min_size_px: Positive = 8
    max_megapixels: AboveZero = 50
    slices: list[Annotated[str, Field(min_length=1)]] = []  # noqa: RUF012 - pydantic copies it

    group: Annotated[str, Field(min_length=1)] | None = None
    source_domain: Annotated[str, Field(min_length=1)] | None = None
    license: Annotated[str, Field(min_length=1)] | None = None

    @field_validator("slices")
    @classmethod
    def are_different_columns(cls, value: list[str]) -> list[str]:
        if "class" in value:
            raise ValueError("the classes are slices already; name other columns")
        if len(set(value)) < len(value):
            raise ValueError("it names a column twice")
        return value


class Validate(Section):
    near_duplicate_bits: Annotated[int, Field(ge=0, le=16)] = 8
    max_class_shift: Fraction = 0.1


_FEW_IMAGES = 16  # of a batch: SimSiam rests on BatchNorm's statistics, and its paper goes down to 64


class Pretrain(Section):
    model: str
    weights: str = "random"
    mode: Literal["none", "self-supervised", "supervised", "zero-shot"] = "none"
    classes: Annotated[str, Field(min_length=1)] = "classes.yaml"
    source: Annotated[str, Field(min_length=1)] | None = None
    tasks: dict[Annotated[str, Field(min_length=1)], AboveZero] = {}  # noqa: RUF012 - pydantic copies it
    learns: Literal["teacher", "student", "both"] = "teacher"
    steps: Positive = 1000
    batch_size: Annotated[int, Field(ge=2)] = 128
    lr: AboveZero = 0.05
    augment: Augment = Augment()

    @model_validator(mode="after")
    def compares_enough_images(self) -> "Pretrain":
        if self.mode == "self-supervised" and self.batch_size < _FEW_IMAGES:
            raise ValueError(
                f"batch_size = {self.batch_size} is too small for mode = self-supervised, which rests on a batch's "
                f"statistics: set it to {_FEW_IMAGES} or more, better 128"
            )
        return self

    @model_validator(mode="after")
    def has_labels_to_learn(self) -> "Pretrain":
        if self.mode == "supervised" and self.source is None:
            raise ValueError(
                "mode = supervised learns the labels of another dataset: set source to its path, or mode to none"
            )
        return self

    @model_validator(mode="after")
    def asks_a_model_that_knows_names(self) -> "Pretrain":
        parts = (self.mode == "zero-shot", self.weights == "open_clip", self.model.startswith("open_clip:"))
        if any(parts) and not all(parts):
            raise ValueError(
                "an image-text model is asked for the classes by name with mode = zero-shot, weights = open_clip and "
                "model = open_clip:NAME/TAG, all three: set them together, or none of them"
            )
        return self

    @property
    def networks(self) -> tuple[str, ...]:
        """Those that are trained before transfer learning, in their order."""
        if self.mode in ("none", "zero-shot"):
            return ()
        return ("teacher", "student") if self.learns == "both" else (self.learns,)

    @property
    def dataset(self) -> str | None:
        """The dataset whose labels are learned first; None if none are."""
        return self.source if self.mode == "supervised" else None


class Training(Section):
    """The settings of every training run with a loss and an optimizer."""

    batch_size: int = Field(ge=2)
    optimizer: Literal["adamw", "sgd"] = "adamw"
    lr: AboveZero
    schedule: Literal["cosine", "one-cycle", "step"] = "cosine"
    warmup: Fraction = 0.1
    weight_decay: NonNegative = 0.0
    clip_norm: NonNegative = 0.0
    accumulate: Positive = 1
    balance: Literal["none", "sampling", "logit-adjustment"] = "none"
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    sync_batch_norm: bool = True
    augment: Augment = Augment()


class Finetune(Training):
    strategy: Literal["feature-extraction", "full", "lp-ft", "gradual-unfreezing", "lora", "none"]
    image_size: Positive
    probe_views: Positive = 4
    probe_steps: Positive
    probe_lr: AboveZero
    epochs: Positive
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    l2_sp: NonNegative = 0.0
    freeze_batch_norm: bool = True  # statistics, scale and shift
    lora_rank: Positive = 8
    lora_targets: list[Annotated[str, Field(min_length=1)]] = []  # noqa: RUF012 - pydantic copies it
    rounds: Positive = 1
    round_epochs: Positive = 4
    round_augment: Augment = Augment()
    adaptation: Literal["none", "dan", "deep-coral", "dann"] = "none"
    adaptation_weight: AboveZero = 1.0

    @model_validator(mode="after")
    def leaves_frozen_layers_as_they_are(self) -> "Finetune":
        if self.strategy in ("gradual-unfreezing", "lora") and not self.freeze_batch_norm:
            raise ValueError(
                f"strategy = {self.strategy} freezes layers, and their BatchNorm's statistics would move all the same: "
                "set freeze_batch_norm to true"
            )
        return self

    @model_validator(mode="after")
    def has_weights_to_pull(self) -> "Finetune":
        if self.strategy == "lora" and self.l2_sp:
            raise ValueError(
                f"l2_sp = {self.l2_sp:g} pulls weights to where they were, and strategy = lora does not move them: set "
                "l2_sp to 0"
            )
        return self

    @model_validator(mode="after")
    def has_something_to_repeat(self) -> "Finetune":
        if self.strategy == "none" and self.rounds > 1:
            raise ValueError(
                f"rounds = {self.rounds} trains the teacher again and again, and strategy = none not once: set rounds "
                "to 1, or take another strategy"
            )
        return self


DISTILLED_FEATURES = "distilled-features"


class Student(Training):
    """The student and its budget, which the control shares to the letter."""

    model: str
    weights: str = "random"
    prune: Annotated[float, Field(ge=0, lt=1)] = 0.0
    image_size: Positive
    steps: Positive
    eval_every: Positive = 100
    augment: StudentAugment = StudentAugment()

    @model_validator(mode="after")
    def has_channels_to_prune(self) -> "Student":
        if self.prune and not self.from_weights:
            raise ValueError(
                f"prune = {self.prune:g} removes channels of a trained network, and weights = {self.weights} is none: "
                "set weights to the .safetensors file of one, or prune to 0"
            )
        return self

    @property
    def from_weights(self) -> bool:
        """Whether it starts from weights that are named, and not from random ones."""
        return self.weights not in ("random", DISTILLED_FEATURES)


class Label(Section):
    views: int | str = 4
    top_k: Positive = 32
    batch_size: Positive = 256
    proof: Positive = 64

    @field_validator("views")
    @classmethod
    def is_a_number_of_views(cls, value: int | str) -> int | str:
        if value != "auto" and (isinstance(value, str) or value < 1):
            raise ValueError("it is a number of views from 1 on, or auto: as many as the student visits each image")
        return value


class Compress(Section):
    max_logit_difference: AboveZero = 1e-3
    ships: Literal[Ships, "auto"] = "auto"
    prefer: Literal["smallest", "fastest"] = "smallest"
    max_loss: Annotated[float, Field(gt=0, lt=1)] = 0.02


class Evaluate(Section):
    bootstrap: Annotated[int, Field(ge=100)] = 2000
    latency_runs: Annotated[int, Field(ge=20)] = 300
    license: str | None = None

    @field_validator("license")
    @classmethod
    def is_an_id_of_the_hub(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", value):
            raise ValueError("it is a license's id as on the Hugging Face hub, such as mit, apache-2.0 or other")
        return value


class Monitor(Section):
    alpha: float = Field(0.01, gt=0, lt=1)
    n: Positive = 2
    m: Positive = 3

    @model_validator(mode="after")
    def can_be_reached(self) -> "Monitor":
        if self.n > self.m:
            raise ValueError("n of the last m checks: n must be m at most")
        return self


class Params(Section):
    project: Project
    seed: int = Field(0, ge=0, lt=2**32)
    run: Run = Run()
    ingest: Ingest
    validate_: Validate = Field(Validate(), alias="validate")
    pretrain: Pretrain
    finetune: Finetune
    student: Student
    label: Label = Label()
    distill: Distill
    compress: Compress = Compress()
    evaluate: Evaluate = Evaluate()
    registry: Registry
    monitor: Monitor = Monitor()
    tune: Tune = Tune()

    @model_validator(mode="after")
    def has_a_student_to_transfer(self) -> "Params":
        if self.distill.when == "joint" and self.student.weights == "random":
            raise ValueError(
                "distill.when = joint transfers a pretrained student while it is distilled; set student.weights to a "
                ".safetensors file, pypi, timm or a models:/ URI"
            )
        return self

    @model_validator(mode="after")
    def has_features_to_adapt(self) -> "Params":
        adaptation, strategy, domain = self.finetune.adaptation, self.finetune.strategy, self.ingest.source_domain
        if strategy == "none" and domain is not None:
            raise ValueError(
                f"ingest.source_domain = {domain} teaches the teacher, and finetune.strategy = none trains none; set "
                "ingest.source_domain to null, or take another strategy"
            )
        if adaptation == "none":
            return self
        if domain is None:
            raise ValueError(
                f"finetune.adaptation = {adaptation} makes a labeled source domain and the unlabeled images alike; set "
                "ingest.source_domain to that dataset"
            )
        if strategy == "feature-extraction" or self.distill.when == "joint":
            kept = "distill.when = joint" if self.distill.when == "joint" else f"finetune.strategy = {strategy}"
            raise ValueError(
                f"finetune.adaptation = {adaptation} trains the features, which {kept} leaves as they are; set "
                f"{'distill.when to after-transfer' if kept.startswith('d') else 'finetune.strategy to full'}"
            )
        return self

    @model_validator(mode="after")
    def has_a_finished_teacher(self) -> "Params":
        weights = self.pretrain.weights
        if self.pretrain.mode == "zero-shot" and self.finetune.strategy != "none":
            raise ValueError(
                f"pretrain.mode = zero-shot makes a finished teacher, and finetune.strategy = {self.finetune.strategy} "
                "would train it; set finetune.strategy to none, or pretrain.mode to none"
            )
        if self.finetune.strategy == "none" and "teacher" in self.pretrain.networks:
            raise ValueError(
                f"finetune.strategy = none uses a finished teacher unchanged, and pretrain.mode = {self.pretrain.mode} "
                "would train it; set pretrain.learns to student, or take another strategy"
            )
        if self.finetune.strategy == "none" and weights in ("random", "pypi", "timm"):
            raise ValueError(
                f"finetune.strategy = none uses a finished teacher unchanged, and pretrain.weights = {weights} is none "
                "of this dataset; set pretrain.weights to a .safetensors file or models:/ URI, or take another strategy"
            )
        return self

    @model_validator(mode="after")
    def divides_the_students_steps(self) -> "Params":
        phases, distill = self.phases, self.distill
        named = "student.weights = distilled-features" if "features" in phases else "distill.finish = labels"
        if len(phases) > 1 and distill.targets_from == "peers":
            raise ValueError(f"{named} is a step of learning from a teacher, and deep-mutual-learning has none")
        if "features" in phases and distill.teachers:
            raise ValueError(f"{named} compares the features of one teacher; set distill.teachers to []")
        if phases["distill"] < 1:
            raise ValueError(
                f"student.steps = {self.student.steps} leaves no step to learn from soft labels: raise it, or lower "
                "distill.feature_share or distill.finish_share"
            )
        return self

    @model_validator(mode="after")
    def remembers_whole_images(self) -> "Params":
        remembers = next((loss.name for loss in self.distill.losses if loss.whole_images), None)
        if remembers and self.student.augment.mixup + self.student.augment.cutmix:
            raise ValueError(
                f"distill.method {remembers} remembers what the student says of an image, and a mixed view shows two; "
                "set student.augment.mixup and cutmix to 0, or take it out"
            )
        return self

    @property
    def datasets(self) -> dict[str, str]:
        """The paths of the datasets that a run reads, by the params that name them; its own is the first."""
        named = {"ingest.source": self.ingest.source, "ingest.source_domain": self.ingest.source_domain}
        named["pretrain.source"] = self.pretrain.dataset
        return {param: path for param, path in named.items() if path is not None}

    @property
    def student_is_pretrained(self) -> bool:
        """Whether ``pretrain`` leaves weights for the student and its control to start from."""
        return self.student.from_weights or "student" in self.pretrain.networks

    @property
    def phases(self) -> dict[str, int]:
        """The student's steps by phase, in their order: ``features``, ``distill`` and ``labels``, those that there are.

        Together they are ``student.steps``, the control's.
        """
        steps, distill = self.student.steps, self.distill
        features = max(1, round(distill.feature_share * steps)) if self.student.weights == DISTILLED_FEATURES else 0
        labels = max(1, round(distill.finish_share * steps)) if distill.finish == "labels" else 0
        phases = {"features": features, "distill": steps - features - labels, "labels": labels}
        return {name: count for name, count in phases.items() if count or name == "distill"}

    def views_of_each(self, images: int) -> int:
        """The number of views of each of ``images`` whose soft labels are learned.

        With ``label.views = auto`` it is as often as the student visits each, so that no view repeats.
        """
        views = self.label.views
        if isinstance(views, str):
            return math.ceil(self.phases["distill"] * self.student.batch_size / max(1, images))
        return views
