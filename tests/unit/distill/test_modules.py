import pytest
import torch

from components.core.models.pixel_model import PixelModel, pixel_model
from components.core.teacher.hooks import find_layer
from components.distill.modules import DistillModule, Peers, Regressors, ReviewFusion

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


def test_reviewkd_gives_each_stage_the_teachers_shape_and_shallow_ones_learn_from_deep_ones():
    shapes = [(8, 16, 16), (16, 8, 8), (32,)]  # the last is pooled
    wanted = [(24, 14, 14), (48, 7, 7), (96,)]
    features = [torch.randn(2, *shape, generator=torch.Generator().manual_seed(0)) for shape in shapes]
    deep = features[2].requires_grad_()
    fused = ReviewFusion(shapes, wanted)(features)
    assert [tuple(out.shape) for out in fused] == [(2, *shape) for shape in wanted]
    (gradient,) = torch.autograd.grad(fused[0].square().mean(), deep)
    assert gradient.any()
