"""Self-supervised pretraining by SimSiam (Chen and He 2021), with lightly's heads and loss."""

from collections.abc import Callable, Iterator
from itertools import count

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reflux.components.core.data.draws import batch_indices
from reflux.components.core.data.shards import UNLABELED, decoded
from reflux.components.core.precision import single_precision
from reflux.components.core.training.batches import ahead
from reflux.components.core.training.loop import Batch
from reflux.components.modalities.image.models.pixel_model import PixelModel
from reflux.components.modalities.image.views.mixing import Views
from reflux.components.stages.pretrain.tasks import width_of

_WIDEST, _FACTOR, _BOTTLENECK = 2048, 8, 4  # the paper's widths are 2048 and 512, for the 2048 features of a ResNet50


class SimSiam(nn.Module):
    """A network that learns to tell an image by any of its views, and whose head learns the labels without teaching it.

    In training it takes pairs of views [B, 2, C, H, W] and returns the logits [B, K] of the first, through which no
    gradient reaches the backbone, and each view's prediction and projection [B, D]: p_1, p_2, z_1, z_2. In eval mode it
    returns the logits of pixels [B, C, H, W]: they say how good the features are.
    """

    def __init__(self, model: PixelModel) -> None:
        from lightly.models.modules.heads import SimSiamPredictionHead, SimSiamProjectionHead

        super().__init__()
        self.model = model
        dimensions = width_of(model)
        width = min(_WIDEST, _FACTOR * dimensions)
        self.projector = SimSiamProjectionHead(dimensions, width, width)
        self.predictor = SimSiamPredictionHead(width, width // _BOTTLENECK, width)

    def forward(self, pixels: Tensor) -> Tensor | tuple[Tensor, ...]:
        if not self.training:
            return self.model(pixels)
        features = [self.model.features(views) for views in pixels.unbind(1)]
        projections = [self.projector(each) for each in features]
        predictions = [self.predictor(each) for each in projections]
        head = self.model.net.get_classifier()  # type: ignore[operator]
        return head(features[0].detach()).float(), *predictions, *projections


@single_precision
def simsiam(one: Tensor, other: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """``½ D(p_1, z_2) + ½ D(p_2, z_1)``, D the negative cosine similarity; no gradient flows through z.

    Args:
        one, other: predictions [B, D] of the two views, p_1 and p_2.
        first, second: their projections [B, D], z_1 and z_2.

    Returns:
        [], from 1 down to -1 where each view predicts the other.
    """
    from lightly.loss.negative_cosine_similarity import NegativeCosineSimilarity

    distance = NegativeCosineSimilarity()
    return 0.5 * (distance(one, second.detach()) + distance(other, first.detach()))


def loss(output: tuple[Tensor, ...], labels: Tensor) -> dict[str, Tensor]:
    """SimSiam's loss, and the cross-entropy with the labels of the images that have one, each [B].

    The mean of the latter over the batch is that over its labeled images, so that few among many teach the head, too.
    """
    logits, *pairs = output
    share = (labels != UNLABELED).float().mean().clamp(min=1 / len(labels))
    hard = F.cross_entropy(logits, labels, reduction="none", ignore_index=UNLABELED) / share
    return {"simsiam": simsiam(*pairs).expand(len(logits)), "ce": hard}


def pairs_of_views(views: Views, batch_size: int, device: torch.device) -> Callable[[int], Iterator[Batch]]:
    """Endless batches of two views [B, 2, C, H, W] of each image with its label, from any step on; none repeats."""
    images, labels = views.images, torch.from_numpy(views.images.labels)

    def at(step: int) -> Batch:
        indices, visits = batch_indices(views.seed, step, len(images), batch_size)
        pair = [views.pixels(indices, 2 * visits + number, device) for number in (0, 1)]
        return Batch(torch.stack(pair, 1), (labels[indices].to(device),), batch_size)

    in_line = device.type == "cpu" and decoded(images.images)  # as in reflux.components.core.training.batches
    return lambda begin: map(at, count(begin)) if in_line else ahead(at, begin)
