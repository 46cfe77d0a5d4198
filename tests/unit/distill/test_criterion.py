import pytest
import torch

from components.core.errors import UserError
from components.core.models.pixel_model import PixelModel, pixel_model
from components.core.params import distill
from components.core.params.distill import METHODS, Loss
from components.core.teacher.hooks import teacher_outputs
from components.core.training.loop import total
from components.distill.criterion import terms
from components.distill.modules import Criterion, DistillModule, labels_or_choice, mutual_loss

CPU = torch.device("cpu")
LOSSES = sorted(name for name, kind in METHODS.items() if issubclass(kind, Loss))
IMAGES = 20


def model(name: str, size: int, classes: str = "abc", seed: int = 0) -> PixelModel:
    torch.manual_seed(seed)
    return pixel_model(name, tuple(classes), size, 1, [0.5], [0.25])


def wanted(name: str, **settings) -> Loss:
    return METHODS[name](**({"negatives": 8} if name == "crd" else {}), **settings)


def batch(teacher: PixelModel, found, count: int = 8):
    pixels = torch.randint(0, 256, (count, 1, 28, 28), generator=torch.Generator().manual_seed(0)).byte()
    answer = teacher_outputs(teacher, tuple(tap for term in found for tap in term.teacher), pixels, CPU)
    labels = torch.arange(count) % 3
    known = torch.ones(count)
    return pixels, (*answer, labels, known, torch.arange(count))


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_every_loss_teaches_the_student_and_its_adapters(name: str, precision: torch.dtype):
    """A wide teacher at another size, a narrow student: shapes differ wherever they can."""
    teacher, student = model("wrn_16_2", 32).eval(), model("resnet8_slim", 28)
    found = terms([wanted(name)], False, student, teacher, IMAGES)
    module = DistillModule(student, found).train()
    pixels, targets = batch(teacher, found)
    with torch.autocast("cpu", precision, enabled=precision == torch.bfloat16):
        answer = module(pixels)
    parts = Criterion(found, 0.0, 1.0)(answer, *targets)
    assert list(parts) == [name]
    value = parts[name]
    assert value.shape == (8,)
    assert value.dtype == torch.float32
    value.mean().backward()
    of_student = [p for key, p in student.named_parameters() if not (METHODS[name].of_layers and "head" in key)]
    if name != "fitnet":  # its layer is not the last
        assert all(p.grad is not None and p.grad.isfinite().all() for p in of_student)
    beside = [p for key, p in module.named_parameters() if not key.startswith("student.")]
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in beside if p.ndim > 1)
    assert bool(beside) == (name in ("fitnet", "reviewkd", "crd"))


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_counts_with_its_weight_beside_the_hard_labels(name: str):
    teacher, student = model("resnet14", 28, seed=1).eval(), model("resnet8_slim", 28)
    torch.manual_seed(2)
    once = terms([wanted(name, weight=2.0)], False, student, teacher, IMAGES)
    torch.manual_seed(2)
    twice = terms([wanted(name, weight=4.0)], False, student, teacher, IMAGES)
    values = []
    for found, of_labels in ((once, 0.0), (twice, 0.0), (once, 0.5)):
        torch.manual_seed(3)  # crd draws the images it compares with
        for module in (term.memory for term in found if term.memory):
            module.log_z.fill_(0.0)
        module = DistillModule(student.eval(), found)
        module.training = True
        pixels, targets = batch(teacher, found)
        values.append(total(Criterion(found, of_labels, 3.0)(module(pixels), *targets)).mean())
    hard = torch.nn.functional.cross_entropy(student(pixels), targets[-3])
    if name != "crd":  # its memory has moved on
        assert torch.allclose(2 * values[0], values[1], rtol=1e-4)
        assert torch.allclose(values[0] + 0.5 * hard, values[2], rtol=1e-4)
    assert values[0] > 0


def test_several_losses_each_see_their_own_layers():
    teacher, student = model("resnet14", 28, seed=1).eval(), model("resnet8_slim", 28)
    several = [wanted("fitnet"), distill.Kd(), wanted("attention-transfer"), wanted("rkd")]
    pixels = None
    alone = []
    for losses in ([one] for one in several):
        torch.manual_seed(2)
        found = terms(losses, False, student, teacher, IMAGES)
        pixels, targets = batch(teacher, found)
        module = DistillModule(student, found).train()
        alone.append(Criterion(found, 0.0, 1.0)(module(pixels), *targets)[losses[0].name])
    torch.manual_seed(2)
    found = terms(several, False, student, teacher, IMAGES)
    pixels, targets = batch(teacher, found)
    together = Criterion(found, 0.0, 1.0)(DistillModule(student, found).train()(pixels), *targets)
    assert list(together) == [loss.name for loss in several]
    assert torch.allclose(torch.stack(list(together.values())), torch.stack(alone), rtol=1e-4)


def test_standardized_logits_do_not_see_the_logits_scale():
    teacher, student = model("resnet14", 28, seed=1).eval(), model("resnet8_slim", 28)
    (term,) = terms([distill.Kd(temperature=2.0)], True, student, None, IMAGES)
    _, (answer, *others) = batch(teacher, [])
    loss = Criterion([term], 0.0, 1.0)
    assert torch.allclose(loss(7 * answer + 3, answer, *others)["kd"], torch.zeros(8), atol=1e-5)
    assert not torch.allclose(loss(-answer, answer, *others)["kd"], torch.zeros(8), atol=1e-2)


@pytest.mark.parametrize(
    ("losses", "standardized", "classes", "sentence"),
    [
        ([distill.Dkd()], False, "ab", "of two classes there is but one other: set distill.method to kd"),
        ([distill.Kd()], True, "ab", "take it out of distill.method"),
        ([distill.Fitnet(student="stage:9")], False, "abc", "resnet8_slim has no stage:9"),
        ([distill.Fitnet(teacher="layer9")], False, "abc", "resnet14 has no layer layer9"),
        ([distill.Fitnet(student="pooled")], False, "abc", r"can't compare a layer that gives \(48,\) with one"),
        ([distill.AttentionTransfer(student=("stage:1",))], False, "abc", "names 1 layers of the student and 3 of the"),
        ([distill.ReviewKd(student=("stage:1", "stage:2", "pooled"))], False, "abc", "compares maps, and pooled gives"),
        ([distill.Crd(dimensions=10**9)], False, "abc", r"memory banks of 20 images, which take [\d,.]+ GiB"),
    ],
)
def test_what_can_not_be_compared_is_one_sentence(losses, standardized: bool, classes: str, sentence: str):
    student, teacher = model("resnet8_slim", 28, classes), model("resnet14", 28, classes)
    with pytest.raises(UserError, match=sentence):
        terms(losses, standardized, student, teacher, IMAGES)


def test_an_image_without_a_label_is_taken_for_what_the_teacher_takes_it_for():
    teacher = torch.tensor([[0.0, 5.0, 0.0], [9.0, 0.0, 0.0]])
    known = torch.tensor([0.0, 2.0])
    assert labels_or_choice(torch.tensor([0, 2]), known, teacher).tolist() == [1, 2]
    mixed = torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.4, 0.6]])
    assert labels_or_choice(mixed, known, teacher).tolist() == [[0.0, 1.0, 0.0], pytest.approx([0.0, 0.4, 0.6])]


def test_peers_learn_from_labels_and_from_each_other_but_not_for_each_other():
    torch.manual_seed(0)
    one, other = (torch.randn(4, 3, requires_grad=True) for _ in range(2))
    labels, known = torch.tensor([0, 1, 2, 0]), torch.tensor([2.0, 0.0, 2.0, 0.0])
    total(mutual_loss((one, other), labels, known, labels, label_weight=0.0, teacher_weight=1.0)).sum().backward()
    expected = one.softmax(1) - other.softmax(1)  # of KL(other ‖ one) alone: the other is a teacher
    assert torch.allclose(one.grad, expected.detach(), atol=1e-6)
    parts = mutual_loss((one, one.clone()), labels, known, labels, label_weight=1.0, teacher_weight=1.0)
    expected = 2 * known * torch.nn.functional.cross_entropy(one, labels, reduction="none")
    assert torch.allclose(parts["ce"], expected, atol=1e-6)
    assert torch.allclose(parts["kd"], torch.zeros(4), atol=1e-6)
