import pytest
import torch
from torch.nn import functional as F

from reflux.components.core.errors import UserError
from reflux.components.stages.distill.losses.ensembling import TemporalEnsembling

ONE, TWO = torch.tensor([4]), torch.tensor([4, 1])
TEACHER = torch.tensor([[0.5, 0.3, 0.2]])
FIRST, SECOND = torch.tensor([[0.2, 0.7, 0.1]]), torch.tensor([[0.1, 0.8, 0.1]])


def sharpened(probabilities: torch.Tensor) -> torch.Tensor:
    return probabilities.square() / probabilities.square().sum(1, keepdim=True)


def test_an_image_is_compared_with_the_sharpened_mean_of_the_teacher_and_the_answers_before():
    loss = TemporalEnsembling(classes=3, images=6, momentum=0.6, sharpness=2.0)
    other = torch.tensor([[0.9, 0.05, 0.05]])
    values = [
        loss(torch.cat([FIRST, other]).log(), torch.cat([TEACHER, other]).log(), TWO)[0],
        loss(SECOND.log(), other.log(), ONE)[0],  # what the teacher says of a later view has no part in it
        loss(SECOND.log(), other.log(), ONE)[0],
    ]
    one = 0.6 * TEACHER + 0.4 * FIRST
    means = [TEACHER, one, 0.6 * one + 0.4 * SECOND]
    for value, mean, answer in zip(values, means, (FIRST, SECOND, SECOND), strict=True):
        wanted = F.kl_div(answer.log(), sharpened(mean), reduction="none").sum()
        assert torch.isclose(value, wanted, atol=1e-6)
    assert loss.means[[0, 2, 3, 5]].isnan().all(), "images that were not seen"


def test_no_gradient_flows_through_the_mean():
    logits = FIRST.log().requires_grad_()
    loss = TemporalEnsembling(classes=3, images=6, momentum=0.6, sharpness=2.0)
    loss(logits, TEACHER.log(), ONE)
    (gradient,) = torch.autograd.grad(loss(logits, TEACHER.log(), ONE).sum(), logits)
    mean = 0.6 * TEACHER + 0.4 * FIRST
    assert torch.allclose(gradient, FIRST - sharpened(mean), atol=1e-6)


def test_means_stay_as_they_are_in_eval_mode_and_travel_with_the_module():
    loss = TemporalEnsembling(classes=3, images=6, momentum=0.6, sharpness=1.0)
    loss(FIRST.log(), TEACHER.log(), ONE)
    before = loss.means.clone()
    loss.eval()(SECOND.log(), TEACHER.log(), ONE)
    assert torch.equal(loss.means.nan_to_num(), before.nan_to_num())
    again = TemporalEnsembling(classes=3, images=6, momentum=0.6, sharpness=1.0)
    again.load_state_dict(loss.state_dict())
    assert torch.equal(again(SECOND.log(), SECOND.log(), ONE), loss.train()(SECOND.log(), SECOND.log(), ONE))


def test_an_answer_of_probability_0_is_no_infinity():
    loss = TemporalEnsembling(classes=3, images=6, momentum=0.0, sharpness=2.0)
    sure = torch.tensor([[200.0, 0.0, -200.0]])
    assert loss(sure, sure, ONE).isfinite().all()
    assert loss(-sure, sure, ONE).isfinite().all()


def test_means_that_do_not_fit_are_one_sentence():
    with pytest.raises(UserError, match=r"temporal-ensembling keeps memory banks of .* GiB with their copies.*take kd"):
        TemporalEnsembling(classes=10**4, images=10**10, momentum=0.6, sharpness=2.0)
