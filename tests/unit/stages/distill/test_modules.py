import pytest
import torch

from reflux.components.core.training import optim
from reflux.components.modalities.image.layers import find_layer
from reflux.components.modalities.image.models.pixel_model import PixelModel, pixel_model
from reflux.components.stages.distill.losses.features import vkd
from reflux.components.stages.distill.modules import (
    DistillModule,
    OrthogonalProjectors,
    Peers,
    ProbedStudent,
    Regressors,
    ReviewFusion,
)

PIXELS = torch.zeros(2, 1, 28, 28, dtype=torch.uint8)


def model(seed: int) -> PixelModel:
    torch.manual_seed(seed)
    return pixel_model("resnet8_slim", ("a", "b", "c"), 28, 1, [0.5], [0.25])


def test_in_training_each_loss_gets_its_layers_through_its_adapter():
    student = model(0)
    layers = [(), (find_layer(student, "stage:1"), find_layer(student, "pooled")), (find_layer(student, "pooled"),)]
    regressors = Regressors([(16, 28, 28), (48,)], [(5, 7, 7), (6,)], [True, True])
    outputs = DistillModule(student, layers, [None, regressors, None], [])(PIXELS)
    assert [tuple(output.shape[:2]) for output in outputs] == [(2, 3), (2, 5), (2, 6), (2, 48)]


@pytest.mark.parametrize("several", ["distilled", "peers"])
def test_in_eval_mode_the_student_answers_alone(several: str):
    student = model(0)
    module = Peers(student, [model(1)]) if several == "peers" else DistillModule(student, [()], [None], [])
    assert isinstance(module(PIXELS), tuple)
    assert torch.equal(module.eval()(PIXELS), student(PIXELS))


def test_a_maps_regressor_has_the_teachers_nonlinearity():
    features = [torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(0))] * 2
    rectified, linear = Regressors([(3, 5, 5)] * 2, [(6, 5, 5)] * 2, [True, False])(features)
    assert rectified.min() == 0
    assert linear.min() < 0


@pytest.mark.parametrize(("own", "other"), [((5,), (7,)), ((6,), (6,)), ((4, 3, 3), (9, 5, 5))])
def test_an_orthogonal_projector_keeps_the_distances_between_images_while_it_is_trained(own, other):
    torch.manual_seed(0)
    projector, features, wanted = OrthogonalProjectors([own], [other]), torch.randn(8, *own), torch.randn(8, other[0])
    optimizer, before = optim.optimizer(optim.weight_decay_groups(projector, 0.1), "adamw", 0.1, 0.1), None
    for _ in range(3):
        (projected,) = projector([features])
        rows, images = (each.movedim(1, -1).flatten(0, -2) for each in (projected, features))
        assert projected.shape[1:] == (other[0], *own[1:])
        assert torch.allclose(torch.pdist(rows), torch.pdist(images), atol=1e-4)
        assert before is None or not torch.allclose(before, projected)
        before = projected.detach()
        vkd(projected.flatten(2).mean(2) if len(own) == 3 else projected, wanted).mean().backward()
        optimizer.step()


def test_labels_teach_the_head_and_features_the_backbone():
    student = model(0)
    trained = ProbedStudent(student, OrthogonalProjectors([(48,)], [(64,)]))
    backbone = [value for name, value in student.named_parameters() if "head" not in name]
    head = [*student.net.head.parameters()]
    for output, learns, stays in zip(trained(PIXELS), (head, backbone), (backbone, head), strict=True):
        assert torch.autograd.grad(output.square().sum(), learns, allow_unused=True)[0] is not None
        assert set(torch.autograd.grad(trained(PIXELS)[output.shape[1] == 64].sum(), stays, allow_unused=True)) == {
            None
        }
    assert torch.equal(trained.eval()(PIXELS), student(PIXELS))


def test_reviewkd_gives_each_stage_the_teachers_shape_and_shallow_ones_learn_from_deep_ones():
    shapes = [(8, 16, 16), (16, 8, 8), (32,)]  # the last is pooled
    wanted = [(24, 14, 14), (48, 7, 7), (96,)]
    features = [torch.randn(2, *shape, generator=torch.Generator().manual_seed(0)) for shape in shapes]
    deep = features[2].requires_grad_()
    fused = ReviewFusion(shapes, wanted)(features)
    assert [tuple(out.shape) for out in fused] == [(2, *shape) for shape in wanted]
    (gradient,) = torch.autograd.grad(fused[0].square().mean(), deep)
    assert gradient.any()
