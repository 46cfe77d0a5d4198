from functools import partial

import pytest
import torch

from reflux.components.core.errors import UserError
from reflux.components.core.params import distill
from reflux.components.core.params.distill import METHODS, LayerLoss, Loss
from reflux.components.core.training.loop import total
from reflux.components.modalities.image.layers import find_layer, teacher_outputs
from reflux.components.modalities.image.models.pixel_model import PixelModel, pixel_model
from reflux.components.stages.distill.criterion import Criterion, Term, mutual_loss, terms
from reflux.components.stages.distill.losses.logits import kd, standardize, temperature_for

CPU = torch.device("cpu")
LOSSES = sorted(name for name, kind in METHODS.items() if issubclass(kind, Loss))
IMAGES = 20


def model(name: str, size: int, classes: str = "abc", seed: int = 0) -> PixelModel:
    torch.manual_seed(seed)
    return pixel_model(name, tuple(classes), size, 1, [0.5], [0.25])


def wanted(name: str, **settings) -> Loss:
    return METHODS[name](**({"negatives": 8} if name == "crd" else {}), **settings)


def batch(teacher: PixelModel, criterion: Criterion, count: int = 8):
    pixels = torch.randint(0, 256, (count, 1, 28, 28), generator=torch.Generator().manual_seed(0)).byte()
    outputs = teacher_outputs(teacher, criterion.teacher_layers, pixels, CPU)
    return pixels, (*outputs, torch.arange(count) % 3, torch.ones(count), torch.arange(count))


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_every_loss_teaches_the_student_and_its_adapters(name: str, precision: torch.dtype):
    """A wide teacher at another size, a narrow student: shapes differ wherever they can."""
    teacher, student = model("wrn_16_2", 32).eval(), model("resnet8_slim", 28)
    criterion = Criterion(terms([wanted(name)], student, teacher, IMAGES), 0.0, 1.0)
    module = criterion.module(student).train()
    pixels, targets = batch(teacher, criterion)
    with torch.autocast("cpu", precision, enabled=precision == torch.bfloat16):
        output = module(pixels)
    parts = criterion(output, *targets)
    assert list(parts) == [name]
    value = parts[name]
    assert value.shape == (8,)
    assert value.dtype == torch.float32
    value.mean().backward()
    layered = issubclass(METHODS[name], LayerLoss)
    of_student = [p for key, p in student.named_parameters() if not (layered and "head" in key)]
    if name not in ("fitnet", "attention-transfer"):  # which do not compare the last layer
        assert all(p.grad is not None and p.grad.isfinite().all() for p in of_student)
    others = [p for key, p in module.named_parameters() if layered and not key.startswith("student.")]
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in others if p.ndim > 1)
    assert bool(others) == (name in ("fitnet", "vkd", "reviewkd", "crd"))


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_counts_with_its_weight_next_to_the_hard_labels(name: str):
    teacher, student = model("resnet14", 28, seed=1).eval(), model("resnet8_slim", 28)
    values = []
    for weight, label_weight in ((2.0, 0.0), (4.0, 0.0), (2.0, 0.5)):
        torch.manual_seed(2)
        criterion = Criterion(terms([wanted(name, weight=weight)], student, teacher, IMAGES), label_weight, 3.0)
        module = criterion.module(student.eval())
        module.training = True
        pixels, targets = batch(teacher, criterion)
        torch.manual_seed(3)  # crd draws the images it compares with
        values.append(criterion(module(pixels), *targets))
    once, twice, both = values
    hard = torch.nn.functional.cross_entropy(student(pixels), targets[-3], reduction="none")
    assert torch.allclose(2 * once[name], twice[name], rtol=1e-4)
    assert torch.allclose(once[name], both[name], rtol=1e-4)
    assert torch.allclose(both["ce"], 0.5 * hard, rtol=1e-4)
    assert list(once) == [name]
    assert once[name].mean() > 0


def test_several_losses_each_see_their_own_layers():
    teacher, student = model("resnet14", 28, seed=1).eval(), model("resnet8_slim", 28)
    several = [wanted("fitnet"), distill.Kd(), wanted("attention-transfer"), wanted("rkd")]

    def parts_of(losses: list[Loss]) -> dict[str, torch.Tensor]:
        torch.manual_seed(2)
        criterion = Criterion(terms(losses, student, teacher, IMAGES), 0.0, 1.0)
        pixels, targets = batch(teacher, criterion)
        return criterion(criterion.module(student).train()(pixels), *targets)

    together = parts_of(several)
    alone = [parts_of([loss])[loss.name] for loss in several]
    assert list(together) == [loss.name for loss in several]
    assert torch.allclose(torch.stack(list(together.values())), torch.stack(alone), rtol=1e-4)


def test_losses_of_logits_leave_the_student_as_it_is_and_need_no_teacher():
    student = model("resnet8_slim", 28)
    assert Criterion(terms([distill.Kd(), distill.Dkd()], student), 0.1, 1.0).module(student) is student
    with pytest.raises(ValueError, match="rkd compares layers and needs the teacher"):
        terms([distill.Rkd()], student)


def test_a_loss_of_logits_that_remembers_trains_along_and_needs_no_teacher():
    student = model("resnet8_slim", 28)
    criterion = Criterion(terms([distill.Kd(), wanted("temporal-ensembling")], student, None, IMAGES), 0.1, 1.0)
    module = criterion.module(student).train()
    assert not criterion.has_banks_to_fill
    pixels, targets = batch(student, criterion)
    first, second = (criterion(module(pixels), *targets)["temporal-ensembling"] for _ in range(2))
    assert not torch.equal(first, second)
    (means,) = (value for name, value in module.state_dict().items() if name.endswith("means"))
    assert means.isfinite().all(1).tolist() == [True] * 8 + [False] * (IMAGES - 8)
    assert criterion.warmups == {"temporal-ensembling": 0.5}


def test_terms_can_be_made_without_params():
    torch.manual_seed(0)
    logits, teacher = torch.randn(2, 4, 3)
    labels, known, indices = torch.tensor([0, 1, 2, 0]), torch.tensor([2.0, 0.0, 2.0, 0.0]), torch.arange(4)
    parts = Criterion([Term("kd", 1.0, partial(kd, temperature=2.0))], 0.5, 3.0)(
        logits, teacher, labels, known, indices
    )
    hard = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    assert torch.equal(parts["kd"], 3.0 * kd(logits, teacher, 2.0))
    assert torch.equal(parts["ce"], 0.5 * known * hard)


def test_standardized_logits_do_not_see_the_logits_scale():
    teacher, student = model("resnet14", 28, seed=1).eval(), model("resnet8_slim", 28)
    criterion = Criterion(terms([distill.Kd()], student, standardization=distill.LogitStandardization()), 0.0, 1.0)
    _, (logits, *others) = batch(teacher, criterion)
    assert torch.allclose(criterion(7 * logits + 3, logits, *others)["kd"], torch.zeros(8), atol=1e-5)
    assert not torch.allclose(criterion(-logits, logits, *others)["kd"], torch.zeros(8), atol=1e-2)


def test_logit_standardization_weighs_and_sharpens_every_loss_of_logits_next_to_it():
    teacher, student = model("resnet14", 28, seed=1).eval(), model("resnet8_slim", 28)
    modifier = distill.LogitStandardization(weight=5.0, temperature=1.5)
    several = terms([distill.Kd(weight=2.0), distill.Rkd()], student, teacher, standardization=modifier)
    assert [term.weight for term in several] == [10.0, 1.0]
    logits = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(several[0].loss(*logits), kd(*map(standardize, logits), 1.5))
    (by_classes,) = terms([distill.Kd()], student, standardization=distill.LogitStandardization())
    assert torch.equal(by_classes.loss(*logits), kd(*map(standardize, logits), temperature_for(3)))


def test_memories_are_filled_with_the_features_of_their_own_layers():
    teacher, student = model("resnet14", 28, seed=1).eval(), model("resnet8_slim", 28)
    criterion = Criterion(terms([wanted("rkd"), wanted("crd")], student, teacher, 8), 0.0, 1.0)
    module = criterion.module(student).train()
    pixels, (_, *features, _, _, indices) = batch(teacher, criterion)
    before = {name: value.clone() for name, value in student.state_dict().items()}
    features[0] = torch.full_like(features[0], float("nan"))  # of rkd
    assert criterion.has_banks_to_fill
    criterion.fill_memories(student, [(pixels, indices, features)])
    (memory,) = module.memories
    assert all(torch.equal(before[name], value) for name, value in student.state_dict().items())
    _, own = teacher_outputs(student, (find_layer(student, "pooled"),), pixels, CPU)
    for bank, embed, of in (
        (memory.student_bank, memory.embed_student, own),
        (memory.teacher_bank, memory.embed_teacher, features[1]),
    ):
        assert torch.allclose(bank, torch.nn.functional.normalize(embed(of)), atol=1e-5)
    assert module.training


@pytest.mark.parametrize(
    ("loss", "sentence"),
    [
        (distill.Fitnet(student="stage:9"), "resnet8_slim has no stage:9"),
        (distill.Fitnet(teacher="layer9"), "resnet14 has no layer layer9"),
        (distill.Fitnet(student="pooled"), r"can't compare a layer that gives \(48,\) with one"),
        (distill.AttentionTransfer(student=("stage:1", "pooled")), "compares maps, and pooled gives"),
        (distill.Crd(dimensions=10**9), r"memory banks of 20 images, which take [\d,.]+ GiB"),
    ],
)
def test_what_can_not_be_compared_is_one_sentence(loss, sentence: str):
    student, teacher = model("resnet8_slim", 28), model("resnet14", 28)
    with pytest.raises(UserError, match=sentence):
        terms([loss], student, teacher, IMAGES)


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
    assert torch.allclose(parts["deep-mutual-learning"], torch.zeros(4), atol=1e-6)
