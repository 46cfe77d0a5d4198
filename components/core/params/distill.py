"""The section ``distill``: the methods by name, with their papers' defaults.

An entry of ``distill.method`` is a loss, a modifier of the losses next to it, or a schedule: which network teaches
which, in what order. Layers are addressed as in :func:`reflux.components.modalities.image.layers.find_layer`.
"""

import difflib
import operator
from collections.abc import Sequence
from functools import reduce
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, GetCoreSchemaHandler, ValidationInfo, field_serializer, field_validator, model_validator
from pydantic_core import CoreSchema

from reflux.components.core.params.section import AboveZero, Fraction, Positive, Section
from reflux.components.core.registry import Registry

Temperature = Annotated[float, Field(gt=0)]
Weight = Annotated[float, Field(gt=0)]
Layers = Annotated[tuple[str, ...], Field(min_length=1)]

# Of 240 epochs, dkd's and ReviewKD's authors let their losses rise over the first 20.
_FIRST_EPOCHS = 20 / 240

METHODS: Registry[type["Method"]] = Registry("methods")


class Method(Section):
    """An entry of ``distill.method``; a subclass that names itself is registered in ``METHODS``."""

    min_classes: ClassVar[int] = 2  # the fewest that it suits

    name: str

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        name = cls.model_fields["name"].default
        if isinstance(name, str):
            METHODS.add(name, cls)

    def __str__(self) -> str:
        params = ", ".join(f"{key}={getattr(self, key)}" for key in type(self).model_fields if key != "name")
        return f"{self.name}({params})" if params else self.name


class Loss(Method):
    """A weighted part of the loss.

    Its function is registered under the same name; the params other than weight, warmup and layers are arguments of it.
    Over ``warmup``, a share of the steps, the weight rises from 0.
    """

    hard_labels: ClassVar[float] = 1.0  # the weight that the paper gives the labels next to it
    whole_images: ClassVar[bool] = False  # it remembers images, so that a view must show only one

    weight: Weight = 1.0
    warmup: Fraction = 0.0

    @property
    def settings(self) -> dict[str, Any]:
        """The arguments of the loss function."""
        return self.model_dump(exclude={"name", "weight", "warmup", "student", "teacher"})

    @property
    def layer_pairs(self) -> tuple[tuple[str, str], ...]:
        """Addresses of the layers to compare, (student, teacher); none for a loss of logits."""
        return ()


class LayerLoss(Loss):
    """A loss of features; it needs a live teacher, as only logits are stored."""

    student: str | Layers
    teacher: str | Layers

    @property
    def layer_pairs(self) -> tuple[tuple[str, str], ...]:
        student, teacher = ((side,) if isinstance(side, str) else side for side in (self.student, self.teacher))
        return tuple(zip(student, teacher, strict=True))

    @model_validator(mode="after")
    def names_as_many_layers_of_each(self) -> "LayerLoss":
        student, teacher = (1 if isinstance(side, str) else len(side) for side in (self.student, self.teacher))
        if student != teacher:
            raise ValueError(f"it names {student} layers of the student and {teacher} of the teacher; name as many")
        return self


class Kd(Loss):
    """Hinton, Vinyals and Dean 2015; the temperature is the literature's for CIFAR-100."""

    hard_labels = 0.1

    name: Literal["kd"] = "kd"
    temperature: Temperature = 4.0


class Dkd(Loss):
    """Zhao et al. 2022; their code's values for CIFAR-100, where beta is 2, 6 or 8 by pair of networks."""

    min_classes = 3  # with two classes there is only one other class, and no second part to weight

    name: Literal["dkd"] = "dkd"
    warmup: Fraction = _FIRST_EPOCHS
    alpha: float = Field(1.0, ge=0)
    beta: float = Field(8.0, ge=0)
    temperature: Temperature = 4.0


class Dist(Loss):
    """Huang et al. 2022; the weight and the temperature are theirs for CIFAR-100, 1 for ImageNet."""

    name: Literal["dist"] = "dist"
    weight: Weight = 2.0
    beta: float = Field(1.0, ge=0)
    gamma: float = Field(1.0, ge=0)
    temperature: Temperature = 4.0


class MseLogits(Loss):
    """Ba and Caruana 2014: the squared difference of the logits, without the labels."""

    hard_labels = 0.0

    name: Literal["mse-logits"] = "mse-logits"


class PseudoLabels(Loss):
    """Lee 2013: the teacher's class as a hard label; a control that tells soft labels from more images."""

    hard_labels = 0.1  # as next to kd, whose control it is

    name: Literal["pseudo-labels"] = "pseudo-labels"


class TemporalEnsembling(Loss):
    """Laine and Aila 2017, with the teacher's soft label as the first answer; their momentum, and MixMatch's sharpness.

    Theirs rises over the first 80 of 300 epochs. Weight and warmup were chosen with few labels (``components.plan``).
    """

    hard_labels = 0.1  # as next to kd
    whole_images = True

    name: Literal["temporal-ensembling"] = "temporal-ensembling"
    weight: Weight = 3.0
    warmup: Fraction = 0.5
    momentum: float = Field(0.6, ge=0, lt=1)
    sharpness: float = Field(2.0, ge=1)


class Fitnet(LayerLoss):
    """Romero et al. 2015: a hint from one layer; the weight is the literature's for CIFAR-100."""

    name: Literal["fitnet"] = "fitnet"
    weight: Weight = 100.0
    student: str = "stage:-2"
    teacher: str = "stage:-2"


class AttentionTransfer(LayerLoss):
    """Zagoruyko and Komodakis 2017; the last stage, a few pixels at the sizes of this project, is not compared.

    Their loss is a mean over a map's pixels of length-1 maps, so that each pixel of a small one weighs more.
    """

    name: Literal["attention-transfer"] = "attention-transfer"
    weight: Weight = 1000.0
    student: Layers = ("stage:-3", "stage:-2")
    teacher: Layers = ("stage:-3", "stage:-2")


class SimilarityPreserving(LayerLoss):
    """Tung and Mori 2019."""

    name: Literal["similarity-preserving"] = "similarity-preserving"
    weight: Weight = 3000.0
    student: str = "stage:-1"
    teacher: str = "stage:-1"


class ReviewKd(LayerLoss):
    """Chen et al. 2021: each of the student's layers also reviews its deeper ones; the layers of their code."""

    name: Literal["reviewkd"] = "reviewkd"
    warmup: Fraction = _FIRST_EPOCHS
    student: Layers = ("preact:-3", "preact:-2", "preact:-1", "pooled")
    teacher: Layers = ("preact:-3", "preact:-2", "preact:-1", "pooled")


class Vkd(LayerLoss):
    """Miles, Elezi and Deng 2024: an orthogonal projector, and the teacher's features standardized."""

    name: Literal["vkd"] = "vkd"
    student: str = "pooled"
    teacher: str = "pooled"


class Rkd(LayerLoss):
    """Park et al. 2019, distances and angles between embeddings."""

    name: Literal["rkd"] = "rkd"
    distance: float = Field(25.0, ge=0)
    angle: float = Field(50.0, ge=0)
    student: str = "pooled"
    teacher: str = "pooled"


class Crd(LayerLoss):
    """Tian, Krishnan and Isola 2020, contrast with a memory bank."""

    name: Literal["crd"] = "crd"
    weight: Weight = 0.8
    dimensions: Positive = 128
    negatives: Positive = 16384
    temperature: Temperature = 0.07
    momentum: float = Field(0.5, ge=0, lt=1)
    student: str = "pooled"
    teacher: str = "pooled"


class LogitStandardization(Method):
    """Sun et al. 2024: the losses of logits next to it, or kd alone, compare z-scores of the logits.

    Their weights are multiplied by ``weight``, the authors' for CIFAR-100, and they take its temperature: null is
    that of :func:`reflux.components.stages.distill.losses.logits.temperature_for` for the number of classes: 2 for the
    paper's 100.
    """

    min_classes = 3  # z-scores of two logits are 1 and -1 whatever the teacher says

    name: Literal["logit-standardization"] = "logit-standardization"
    weight: Weight = 9.0
    temperature: Temperature | None = None


class Schedule(Method):
    """Which network teaches which, in what order."""


class TeacherAssistant(Schedule):
    """Mirzadeh et al. 2020: the teacher teaches the first assistant, each assistant the next, the last the student."""

    name: Literal["teacher-assistant"] = "teacher-assistant"
    assistants: Layers = ("resnet20",)


class BornAgain(Schedule):
    """Furlanello et al. 2018: from the second on, each generation of the student learns from the one before."""

    name: Literal["born-again"] = "born-again"
    generations: int = Field(2, ge=2)


class DeepMutualLearning(Schedule):
    """Zhang et al. 2018: students learn from each other, without a teacher; the first of them ships."""

    hard_labels: ClassVar[float] = 1.0

    name: Literal["deep-mutual-learning"] = "deep-mutual-learning"
    peers: Positive = 1


class _Registered:
    """Has pydantic accept each class in ``METHODS``, as they are when a section's schema is built."""

    def __get_pydantic_core_schema__(self, _: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        known = reduce(operator.or_, METHODS.values())
        return handler.generate_schema(Annotated[known, Field(discriminator="name")])


AnyMethod = Annotated[Method, _Registered()]


def losses_of(method: Sequence[Method]) -> tuple[Loss, ...]:
    """List the losses of a method's entries; kd where only a modifier or a schedule is named."""
    return tuple(entry for entry in method if isinstance(entry, Loss)) or (Kd(),)


class Distill(Section):
    """How the student learns from its teacher."""

    when: Literal["after-transfer", "joint"] = "after-transfer"
    method: tuple[AnyMethod, ...] = (Kd(),)
    teacher: Literal["auto", "cached", "live"] = "auto"
    teachers: tuple[str, ...] = ()
    ensemble: Literal["average", "confidence"] = "average"
    mixed_targets: Literal["teacher", "mixture"] = "teacher"
    label_weight: float = Field(None, ge=0, validate_default=True)
    teacher_weight: float = Field(gt=0)
    feature_share: Annotated[float, Field(gt=0, lt=1)] = 0.3
    finish: Literal["none", "labels"] = "none"
    finish_share: Annotated[float, Field(gt=0, lt=1)] = 0.1
    finish_lr: AboveZero = 0.001

    @field_validator("method", mode="before")
    @classmethod
    def names_are_known(cls, value: Any) -> list[Any]:
        """List the entries of the value, which is a name, an entry, or a list of both."""
        given = value if isinstance(value, list | tuple) else [value]
        entries = [{"name": entry} if isinstance(entry, str) else entry for entry in given]
        for entry in entries:
            name = entry.get("name") if isinstance(entry, dict) else getattr(entry, "name", entry)
            if name is None:
                raise ValueError("an entry needs the name of its method, such as {name: kd, temperature: 4}")
            if str(name) not in METHODS:
                near = difflib.get_close_matches(str(name), METHODS, n=2, cutoff=0.5)
                hint = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(METHODS)}"
                raise ValueError(f"no method is named {name}; {hint}")
        return entries

    @field_validator("method")
    @classmethod
    def entries_go_together(cls, value: tuple[AnyMethod, ...]) -> tuple[AnyMethod, ...]:
        names = [entry.name for entry in value]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice:
            raise ValueError(f"it names {twice} twice")
        schedules = [entry.name for entry in value if isinstance(entry, Schedule)]
        if len(schedules) > 1:
            raise ValueError(f"{schedules[0]} and {schedules[1]} are two schedules; name one of them")
        if "deep-mutual-learning" in names and len(names) > 1:
            raise ValueError("deep-mutual-learning has no teacher to compare with; name it alone")
        if not value:
            raise ValueError("it names no method; start with kd")
        return value

    @field_validator("method")
    @classmethod
    def temperatures_are_said_once(cls, value: tuple[AnyMethod, ...]) -> tuple[AnyMethod, ...]:
        if any(isinstance(entry, LogitStandardization) for entry in value):
            for loss in value:
                if isinstance(loss, Loss) and not loss.layer_pairs and "temperature" in loss.model_fields_set:
                    raise ValueError(f"{loss.name} takes logit-standardization's temperature; set it there")
        return value

    @field_validator("label_weight", mode="before")
    @classmethod
    def null_is_the_methods_own(cls, value: Any, info: ValidationInfo) -> Any:
        """Give the labels the weight of the first loss's paper, unless the params say one."""
        if value is not None or "method" not in info.data:
            return value
        peers = next((entry for entry in info.data["method"] if isinstance(entry, DeepMutualLearning)), None)
        return (peers or losses_of(info.data["method"])[0]).hard_labels

    @field_serializer("method")
    def as_text(self, value: tuple[AnyMethod, ...]) -> str:
        """Write the entries as one readable line, for MLflow."""
        return " + ".join(str(entry) for entry in value)

    @model_validator(mode="after")
    def targets_can_be_had(self) -> "Distill":
        layered = [loss.name for loss in self.losses if isinstance(loss, LayerLoss)]
        if self.teacher == "cached" and layered:
            raise ValueError(
                f"{layered[0]} compares features, and only soft labels are stored; set distill.teacher to auto"
            )
        if self.teachers and layered:
            raise ValueError(f"{layered[0]} compares the layers of one teacher; set distill.teachers to []")
        if targets_from(self) != "store" and self.mixed_targets == "mixture":
            raise ValueError(
                "mixed_targets = mixture mixes stored soft labels, and none are stored here; set it to teacher"
            )
        return self

    @property
    def losses(self) -> tuple[Loss, ...]:
        """The losses that are named; kd where only a modifier or a schedule is."""
        return losses_of(self.method)

    @property
    def standardization(self) -> LogitStandardization | None:
        """The modifier with which losses compare z-scores of the logits, if it is named."""
        return next((entry for entry in self.method if isinstance(entry, LogitStandardization)), None)

    @property
    def schedule(self) -> Schedule | None:
        """The schedule, where the teacher does not simply teach the student."""
        return next((entry for entry in self.method if isinstance(entry, Schedule)), None)


def targets_from(distill: Distill) -> Literal["store", "teacher", "peers"]:
    """Return where the soft targets come from: stored soft labels, a live teacher, or the student's peers."""
    if isinstance(distill.schedule, DeepMutualLearning):
        return "peers"
    live = distill.teacher == "live" or any(isinstance(loss, LayerLoss) for loss in distill.losses)
    return "teacher" if live else "store"
