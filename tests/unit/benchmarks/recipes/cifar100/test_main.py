from pathlib import Path

import pytest

from benchmarks.recipes.cifar100.__main__ import PAIRS, dry_run
from reflux.components.core.params.distill import METHODS
from reflux.components.modalities.image.models.pixel_model import network, parameter_count

pytestmark = pytest.mark.long


def test_every_pair_and_method_of_the_cifar_100_protocol_would_run(tmp_path: Path):
    runs = dry_run(tmp_path)
    assert len(runs) == len(PAIRS) * len(METHODS)
    for pair, method, params in runs:
        assert f"{params.pretrain.model}:{params.student.model}" == pair
        assert method in [entry.name for entry in params.distill.method]
        assert (params.student.schedule, params.student.steps, params.student.lr) == ("step", 168750, 0.05)
        assert params.finetune.epochs == 240


def test_methods_have_their_authors_settings_for_the_pair(tmp_path: Path):
    runs = {(pair, method): params.distill for pair, method, params in dry_run(tmp_path)}
    betas = [runs[pair, "dkd"].losses[0].beta for pair in PAIRS]
    assert betas == [2, 2, 8, 6, 6]
    kd, attention = (runs[PAIRS[0], method] for method in ("kd", "attention-transfer"))
    assert (kd.label_weight, kd.losses[0].weight, attention.label_weight) == (0.1, 0.9, 1.0)
    assert [one for one, _ in attention.losses[0].layer_pairs] == ["stage:-3", "stage:-2", "stage:-1"]


@pytest.mark.parametrize(
    ("name", "parameters"), [("vgg13_cifar", 9.46e6), ("resnet32x4", 7.43e6), ("wrn_40_2", 2.26e6)]
)
def test_teachers_have_the_sizes_that_the_literature_prints(name: str, parameters: float):
    assert parameter_count(network(name, 100, 3)) == pytest.approx(parameters, rel=0.01)
