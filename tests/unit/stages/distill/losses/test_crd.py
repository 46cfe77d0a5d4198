import math

import pytest
import torch
from torch import Tensor

from reflux.components.stages.distill.losses.crd import Contrast, bank_bytes, nce


def features(seed: int, rows: int = 6, dim: int = 5) -> Tensor:
    return torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed))


def contrast(images: int = 20, negatives: int = 8, momentum: float = 0.5) -> Contrast:
    torch.manual_seed(0)
    return Contrast(5, 7, images, 4, negatives, 0.07, momentum)


def test_one_image_by_hand():
    """exp(score) = 6 and 2, Z = 2, K / N = 1/4: h = 3 / 3.25 and 1 / 1.25."""
    value = nce(torch.tensor([[6.0, 2.0]]).log(), torch.tensor(2.0).log(), 4)
    assert value.item() == pytest.approx(-math.log(3 / 3.25) - math.log(1 - 1 / 1.25), rel=1e-6)


def test_confidently_right_and_wrong_are_finite():
    scores = torch.tensor([[200.0, -200.0], [-200.0, 200.0]], requires_grad=True)
    value = nce(scores, torch.tensor(0.0), 4)
    value.sum().backward()
    assert value.tolist() == pytest.approx([0, 400], abs=3)
    assert scores.grad.isfinite().all()


def test_the_constants_are_those_of_the_first_batch_and_stay():
    ours, indices = contrast(), torch.arange(6)
    ours(features(0), features(1, dim=7), indices)
    first = ours.log_z.clone()
    ours(features(2), features(3, dim=7), indices)
    assert first.isfinite().all()
    assert torch.equal(ours.log_z, first)


def test_a_bank_runs_after_the_embeddings_of_its_images_and_of_no_others():
    ours, indices = contrast(momentum=0.25), torch.tensor([3, 17, 5, 0, 1, 2])
    before = ours.student_bank.clone()
    mine = torch.nn.functional.normalize(ours.embed_student(features(0)))
    ours(features(0), features(1, dim=7), indices)
    expected = torch.nn.functional.normalize(0.25 * before[indices] + 0.75 * mine)
    assert torch.allclose(ours.student_bank[indices], expected, atol=1e-6)
    untouched = [row for row in range(20) if row not in indices.tolist()]
    assert torch.equal(ours.student_bank[untouched], before[untouched])


def test_filled_banks_hold_the_embeddings_of_the_images():
    ours, indices = contrast(), torch.tensor([3, 17, 5, 0, 1, 2])
    untouched = ours.teacher_bank[4].clone()
    ours.fill(features(0), features(1, dim=7), indices)
    mine, theirs = ours.embed_student(features(0)), ours.embed_teacher(features(1, dim=7))
    for bank, embeddings in ((ours.student_bank, mine), (ours.teacher_bank, theirs)):
        assert torch.allclose(bank[indices], torch.nn.functional.normalize(embeddings), atol=1e-6)
    assert torch.equal(ours.teacher_bank[4], untouched)
    assert ours.log_z.isnan().all()


def test_evaluation_leaves_the_banks_alone():
    ours, indices = contrast(), torch.arange(6)
    ours(features(0), features(1, dim=7), indices)
    before = {name: tensor.clone() for name, tensor in ours.state_dict().items()}
    ours.eval()(features(2), features(3, dim=7), indices)
    assert all(torch.equal(before[name], tensor) for name, tensor in ours.state_dict().items())


def test_saved_and_restored_it_goes_on_as_if_never_stopped():
    torch.manual_seed(0)
    ours, indices = contrast(), torch.arange(6)
    ours(features(0), features(1, dim=7), indices)
    restored = contrast(momentum=0.5)
    restored.load_state_dict(ours.state_dict())
    others = torch.randint(20, (6, 8))
    one, two = (each(features(2), features(3, dim=7), indices, others) for each in (ours, restored))
    assert torch.equal(one, two)
    assert torch.equal(ours.teacher_bank, restored.teacher_bank)


def test_the_banks_take_the_bytes_that_are_computed():
    ours = contrast(images=50)
    assert bank_bytes(50, 4) == sum(bank.nbytes for bank in (ours.student_bank, ours.teacher_bank))


def test_student_and_projections_learn_and_the_banks_do_not():
    ours, student = contrast(), features(0).requires_grad_()
    ours(student, features(1, dim=7), torch.arange(6)).mean().backward()
    assert student.grad.any()
    assert all(parameter.grad.any() for parameter in ours.parameters())
    assert {name for name, _ in ours.named_parameters()}.isdisjoint({"student_bank", "teacher_bank", "log_z"})


def test_an_image_seen_repeatedly_is_recognized():
    """Training lowers the loss: the two embeddings of an image are separated from those of others."""
    ours, student, teacher = contrast(), features(0), features(1, dim=7)
    optimizer = torch.optim.Adam(ours.parameters(), lr=0.05)
    losses = []
    for _ in range(100):
        loss = ours(student, teacher, torch.arange(6)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])


def test_single_precision_under_autocast():
    torch.manual_seed(0)
    ours, others = contrast().eval(), torch.randint(20, (6, 8))
    ours.log_z.zero_()
    plain = ours(features(0), features(1, dim=7), torch.arange(6), others)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(ours(features(0), features(1, dim=7), torch.arange(6), others), plain)
