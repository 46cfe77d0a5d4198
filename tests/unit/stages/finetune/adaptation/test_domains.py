"""The network and the loss of adaptation: what each compares, and who learns what from it."""

import math
from collections.abc import Iterator
from functools import partial

import pytest
import torch

from reflux.components.core.errors import UserError
from reflux.components.core.training.loop import Batch, cross_entropy
from reflux.components.modalities.image.models.pixel_model import PixelModel, pixel_model
from reflux.components.stages.finetune.adaptation.adversarial import domain_loss, strength
from reflux.components.stages.finetune.adaptation.discrepancies import coral, mk_mmd
from reflux.components.stages.finetune.adaptation.domains import (
    DomainNetwork,
    refuse_odd_batches,
    with_adaptation,
    with_reversal,
)

LABELS = torch.tensor([0, 1, -1, -1, 2, 0, 1, -1, -1])
FROM_SOURCE = torch.tensor([True, True, False, False, True, False, True, False, False])


def teacher(network: str = "resnet8", size: int = 16) -> PixelModel:
    torch.manual_seed(0)
    return pixel_model(network, ("a", "b", "c"), size, 1, (0.5,), (0.25,))


def outputs(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(*shape, generator=generator) for shape in ((9, 3), (9, 5), (9,)))


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("dan", lambda s, t: 0.5 * (mk_mmd(s[1], t[1]) + mk_mmd(s[0], t[0]))),
        ("deep-coral", lambda s, t: 0.5 * coral(s[0], t[0])),
        ("dann", lambda s, t: domain_loss(s[2], t[2])),
    ],
)
def test_the_source_is_compared_with_the_unlabeled_images_and_all_labels_are_learned(method: str, expected):
    given = outputs()
    parts = with_adaptation(cross_entropy, method, weight=0.5)(given, LABELS, FROM_SOURCE)
    labeled = LABELS >= 0
    source, target = ([each[rows] for each in given] for rows in (FROM_SOURCE, ~labeled))
    assert set(parts) == {"ce", method}
    assert parts[method].mean().item() == pytest.approx(expected(source, target).item())
    plain = torch.nn.functional.cross_entropy(given[0][labeled], LABELS[labeled])
    assert parts["ce"].mean().item() == pytest.approx(plain.item())
    assert all(part.shape == (9,) for part in parts.values())


@pytest.mark.parametrize(("network", "size"), [("resnet8", 16), ("test_vit", 160), ("tf_efficientnet_lite0", 32)])
def test_the_logits_are_the_teachers_in_training_too(network: str, size: int):
    torch.manual_seed(0)
    model = teacher(network, size)
    adapting = DomainNetwork(model, "dann", channels=1)
    pixels = torch.randint(0, 256, (4, 1, 16, 16), dtype=torch.uint8)
    adapting.eval()
    plain = adapting(pixels)
    assert torch.equal(plain, model(pixels))
    adapting.training = True  # its parts stay in eval mode, so that nothing is drawn
    logits, features, domains = adapting(pixels)
    assert torch.allclose(logits, plain, atol=1e-6)
    assert torch.allclose(features, model.features(pixels), atol=1e-6)
    assert domains.shape == (4,)


def test_the_discriminator_learns_at_full_strength_and_the_features_unlearn_by_the_schedule():
    gradients = []
    for reversal in (0.0, 0.5, 1.0):
        torch.manual_seed(0)
        adapting = DomainNetwork(teacher(), "dann", channels=1).train()
        adapting.reversal.fill_(reversal)
        pixels = torch.randint(0, 256, (9, 1, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
        with_adaptation(cross_entropy, "dann", 1.0)(adapting(pixels), LABELS, FROM_SOURCE)["dann"].mean().backward()
        assert adapting.discriminator is not None
        judge, net = adapting.discriminator[0].weight.grad, next(adapting.teacher.parameters()).grad
        gradients.append((judge.clone(), net.clone()))
    assert all(torch.allclose(judge, gradients[0][0]) for judge, _ in gradients)
    assert bool((gradients[0][1] == 0).all())
    assert torch.allclose(gradients[2][1], 2 * gradients[1][1], rtol=1e-3, atol=1e-8)


def test_dan_and_coral_have_no_discriminator():
    assert DomainNetwork(teacher(), "dan", channels=1).discriminator is None


def test_the_reversal_is_a_function_of_the_step_alone():
    adapting = DomainNetwork(teacher(), "dann", channels=1)

    def batches(begin: int) -> Iterator[Batch]:
        for _ in range(begin, 8):
            yield Batch(torch.zeros(1, 1, 2, 2), (), 1)

    rising = with_reversal(batches, adapting, steps=8, weight=0.5)
    seen = {begin: [adapting.reversal.item() for _ in rising(begin)] for begin in (0, 5)}
    assert seen[0] == pytest.approx([0.5 * strength(step / 8) for step in range(8)])
    assert seen[5] == seen[0][5:]


def test_a_batch_without_pairs_in_every_part_is_refused():
    check = partial(refuse_odd_batches, "dan", accumulate=2, processes=2)
    check(batch_size=16)
    with pytest.raises(UserError, match=r"adaptation = dan compares pairs .*batch_size = 12 a multiple of 8"):
        check(batch_size=12)


def test_domains_that_look_alike_to_the_discriminator_cost_ln_2():
    zeros = (torch.zeros(9, 3), torch.zeros(9, 5), torch.zeros(9))
    parts = with_adaptation(cross_entropy, "dann", 1.0)(zeros, LABELS, FROM_SOURCE)
    assert parts["dann"].mean().item() == pytest.approx(math.log(2))
