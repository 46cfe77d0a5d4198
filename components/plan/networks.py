"""The ladder of students: what each weighs as the file that ships."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Network:
    """A network that can be a student.

    Attributes:
        name: among :data:`components.core.models.small_nets.SMALL_NETS`.
        kb: of its ONNX file for ten classes and three channels, in 1,024 bytes.
        features: that its head takes.
    """

    name: str
    kb: float
    features: int

    def kb_of(self, classes: int) -> float:
        """KB of its file for so many classes: the head has a weight for each feature, and a bias."""
        return self.kb + (classes - 10) * (self.features + 1) * 4 / 1024


# From the smallest to the largest, as preflight's rehearsal weighs them. Deeper ones of the same weight are left out.
LADDER: Sequence[Network] = (
    Network("resnet8_tiny", 51.3, 24),
    Network("resnet8_thin", 90.8, 32),
    Network("resnet8_slim", 189.6, 48),
    Network("resnet8", 306.2, 64),
    Network("resnet14", 686.6, 64),
    Network("resnet20", 1066.9, 64),
    Network("wrn_16_2", 2708.9, 128),
    Network("resnet8x4", 4725.8, 256),
)
