"""The sections of ``params.yaml``: frozen models that forbid unknown keys.

A default stands in for a key that ``params.yaml`` leaves out, so it decides results too: see
:mod:`reflux.components.core.runtime.installed`.
"""

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from reflux.components.core.params.derived import phases_of, views_of_each
from reflux.components.core.params.distill import Distill, targets_from
from reflux.components.core.params.registry import Registry
from reflux.components.core.params.run import Run
from reflux.components.core.params.section import AboveZero, Fraction, NonNegative, Positive, Section, Ships
from reflux.components.core.params.training import Finetune, Label, Pretrain, Student
from reflux.components.core.params.tune import Tune


class Project(Section):
    name: str = Field(min_length=1, max_length=200)

    @field_validator("name")
    @classmethod
    def names_a_folder(cls, value: str) -> str:
        if re.search(r"[\\:'\x00-\x1f\x7f]|^[\s./]|(^|/)\.\.?(/|$)|//|[\s/]$", value):
            raise ValueError("it names a folder of artifacts: letters, digits, spaces, dots, - and _, without .. or :")
        return value


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


class Compress(Section):
    max_logit_difference: AboveZero = 1e-3
    ships: Literal[Ships, "auto"] = "auto"
    prefer: Literal["smallest", "fastest"] = "smallest"
    max_loss: Annotated[float, Field(gt=0, lt=1)] = 0.01


class Evaluate(Section):
    bootstrap: Annotated[int, Field(ge=100)] = 2000
    latency_runs: Annotated[int, Field(ge=20)] = 300
    probe: Literal["patterns", "test"] = "patterns"
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
        if len(phases) > 1 and targets_from(distill) == "peers":
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
        """True if ``pretrain`` leaves weights for the student and its control to start from."""
        return self.student.from_weights or "student" in self.pretrain.networks

    @property
    def phases(self) -> dict[str, int]:
        """The student's steps by phase; see :func:`~reflux.components.core.params.derived.phases_of`."""
        return phases_of(self.student.steps, self.student.weights, self.distill)

    def views_of_each(self, images: int) -> int:
        """Count the views of each image; see :func:`~reflux.components.core.params.derived.views_of_each`."""
        return views_of_each(self.label.views, self.phases["distill"] * self.student.batch_size, images)
