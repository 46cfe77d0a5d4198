"""What labeled images can tell in seconds, of train and val alone: linear classifiers on a frozen network's features.

Each image is classified by the classifier that was fitted to all others, which ridge regression has in closed form
(Allen 1974, Technometrics 16): a thousand images say as much as a thousand validation images would.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch

from reflux.components.advice.plan.choice import Answers
from reflux.components.advice.plan.profile import Look
from reflux.components.core.data.shards import UNLABELED, Pixels
from reflux.components.core.runtime.device import resolve_device
from reflux.components.core.significance import mcnemar, paired_score_bound
from reflux.components.core.training.state import standard_error
from reflux.components.modalities.image.models.pixel_model import PixelModel, adapted
from reflux.components.stages.finetune.transfer import features_of_images
from reflux.components.stages.pretrain.weights import pretrained, weights_file

MOST = 600  # images that are asked about
FEWEST = 40  # with fewer nothing is asked
_BATCH = 32  # on CPUs half the time of 256
_PENALTIES = (0.003, 0.03, 0.3, 3.0)  # of ridge regression, times the mean square of the features
_FLIP_ALPHA = 0.05

# The accuracy that mirroring may cost without notice. A hundred images of MNIST lost 3 points, and may lose 12.3 (the
# lower end of the 95 % interval); 600 of Fashion-MNIST lost 2, and may lose 4.3.
_FLIP_MARGIN = 0.05

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]
Correct = npt.NDArray[np.bool_]


def ask(
    look: Look, classes: Sequence[str], sizes: Sequence[int], model: str, weights: str, device: str, threads: int
) -> Answers:
    """Ask which image size the teacher needs, and whether mirroring changes the class.

    Args:
        look: some of the dataset's images; those of test are left alone.
        classes: of the dataset.
        sizes: the teacher's image sizes to choose from.
        model, weights: ``pretrain`` of the params.
        device, threads: ``run`` of the params.

    Raises:
        UserError: the weights can't be had, or the device is not there.
    """
    rows = np.flatnonzero(np.isin(look.splits, ("train", "val")) & (look.labels != UNLABELED))[:MOST]
    pixels, labels = look.pixels[rows], look.labels[rows]
    if len(rows) < FEWEST or weights == "random":
        return Answers()
    where = resolve_device(device, threads, deterministic=False)
    network = pretrained(model, weights, weights_file(model, weights))
    right: dict[int, Correct] = {}
    for size in sizes:
        teacher = adapted(network, classes, size, 3).to(where).eval()
        features = features_of(teacher, pixels, where)
        if not right:
            mirror = features_of(teacher, np.ascontiguousarray(pixels[:, :, ::-1]), where)
            right[size], mirrored = leave_one_out(features, labels, mirror)
            flip, flip_reason = may_mirror(right[size], mirrored)
        else:
            right[size], _ = leave_one_out(features, labels, features)
    teacher_size, teacher_reason = smallest_as_good(right)
    return Answers(flip, flip_reason, teacher_size, teacher_reason)


def features_of(model: PixelModel, pixels: Pixels, device: torch.device) -> Floats:
    """The frozen network's features, float64 [N, D], of pixels uint8 [N, S, S, C]."""
    parts = [
        part.cpu().double().numpy()
        for begin in range(0, len(pixels), _BATCH)
        for part in features_of_images(model, pixels[begin : begin + _BATCH], device)
    ]
    return np.concatenate(parts)


def leave_one_out(features: Floats, labels: Labels, others: Floats) -> tuple[Correct, Correct]:
    """Ask about each image the classifier that was fitted to all other images.

    With the kernel ``K`` of ridge regression, ``G = (K + λ)⁻¹`` and ``a = G y``, the classifier without image ``i`` has
    the coefficients ``a - a_i G_i / G_ii``.

    Args:
        features: of images, float64 [N, D].
        labels: of the images, int64 [N].
        others: features of another view of each, [N, D].

    Returns:
        Whether the answer is right, bool [N], for the images and for their other views; with the penalty that is best
        for the images.
    """
    mean, scale = features.mean(0), features.std(0) + 1e-6
    x, z = (features - mean) / scale, (others - mean) / scale
    targets = np.eye(int(labels.max()) + 1)[labels]
    shares = targets.mean(0)
    y = targets - shares
    kernel, other_kernel = x @ x.T + 1, z @ x.T + 1  # one more feature that is always 1
    values, vectors = np.linalg.eigh(kernel)
    best, answers = math.inf, (np.zeros(len(x), bool), np.zeros(len(x), bool))
    for penalty in _PENALTIES:
        inverse = (vectors / (values + penalty * np.trace(kernel) / len(x))) @ vectors.T
        left = (inverse @ y) / np.diag(inverse)[:, None]
        plain = y - left
        other = other_kernel @ (inverse @ y) - left * np.einsum("ij,ji->i", other_kernel, inverse)[:, None]
        if (error := float((left**2).sum())) < best:
            best = error
            answers = ((plain + shares).argmax(1) == labels, (other + shares).argmax(1) == labels)
    return answers


def smallest_as_good(right: Mapping[int, Correct]) -> tuple[int, str]:
    """The smallest image size whose accuracy is within one standard error of the best, and why it is that."""
    accuracies = {size: float(each.mean()) for size, each in right.items()}
    best, n = max(accuracies.values()), len(next(iter(right.values())))
    error = standard_error(best, n)
    size = min(size for size, accuracy in accuracies.items() if accuracy >= best - error)
    tried = ", ".join(f"{accuracy:.1%} at {each}" for each, accuracy in accuracies.items())
    return size, f"a linear probe gets {tried} (±{error:.1%})"


def may_mirror(plain: Correct, mirrored: Correct) -> tuple[bool | None, str]:
    """Tell if classes survive mirroring.

    Returns:
        False if the probe errs more often on mirror images than chance explains, True if its loss there is below
        ``_FLIP_MARGIN`` with 97.5 % confidence, and None if the images are too few to tell; and the reason.
    """
    said = f"a linear probe gets {plain.mean():.1%} of the images and {mirrored.mean():.1%} of their mirror images"
    if mirrored.mean() < plain.mean() and mcnemar(plain, mirrored) < _FLIP_ALPHA:
        return False, f"not mirrored: {said}"
    if paired_score_bound(mirrored, plain) < -_FLIP_MARGIN:
        return None, f"{said}, too few to tell"
    return True, f"mirrored: {said}"
