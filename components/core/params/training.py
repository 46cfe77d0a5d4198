"""The sections of ``params.yaml`` on what is trained: frozen models that forbid unknown keys."""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from reflux.components.core.params.augment import Augment, StudentAugment
from reflux.components.core.params.derived import Role, pretrained_networks, starts_from_weights
from reflux.components.core.params.section import AboveZero, Fraction, NonNegative, Positive, Section

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
    def networks(self) -> tuple[Role, ...]:
        """Those that are trained before transfer learning, in their order."""
        return pretrained_networks(self.mode, self.learns)

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
        """True if it starts from weights of a trained network."""
        return starts_from_weights(self.weights)


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
