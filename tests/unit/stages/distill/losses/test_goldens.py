"""Our losses give torchdistill's values where torchdistill is right; make_goldens.py wrote those."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from reflux.components.stages.distill.losses.crd import Contrast
from reflux.components.stages.distill.losses.features import attention_transfer, hcl, similarity_preserving
from reflux.components.stages.distill.losses.logits import dist, kd, standardize
from reflux.components.stages.distill.losses.relations import rkd_angle, rkd_distance
from reflux.components.stages.distill.modules import Fusion
from tests.unit.stages.distill.losses.make_goldens import (
    DIM,
    GOLDENS,
    IMAGES,
    INDICES,
    LABELS,
    MOMENTUM,
    NEGATIVES,
    OTHERS,
    TEMPERATURE,
    filled,
    made,
    numbers,
)

GOLDEN = json.loads(GOLDENS.read_text(encoding="utf-8"))
LOGITS, MAPS, EMBEDDINGS = ((numbers(0, *s), numbers(1, *s)) for s in ((6, 5), (6, 4, 8, 8), (6, 7)))
HARD = F.cross_entropy(LOGITS[0], LABELS)

OURS = {
    "kd": lambda: 0.25 * HARD + 0.75 * kd(*LOGITS, 4.0).mean(),
    "standardized_kd": lambda: 0.25 * HARD + 9 * kd(*map(standardize, LOGITS), 2.0).mean(),
    "dist": lambda: dist(*LOGITS, 4.0, 1.0, 2.0),
    "attention_transfer": lambda: attention_transfer(*MAPS).mean(),
    "rkd_distance": lambda: rkd_distance(*EMBEDDINGS),
    "rkd_angle": lambda: rkd_angle(*EMBEDDINGS),
    "hcl": lambda: hcl(*MAPS).mean(),
}


@pytest.mark.parametrize("name", OURS)
def test_the_value_is_torchdistills(name: str):
    assert OURS[name]().item() == pytest.approx(GOLDEN[name], rel=2e-5)


def test_similarity_preserving_is_not_torchdistills_which_sums_to_1_where_the_paper_has_length_1():
    """Its ``normalize(matrix, 1)`` takes 1 for the norm's p; the rows are meant (Tung and Mori 2019, section 3)."""
    products = [flat @ flat.T for flat in (maps.flatten(1) for maps in MAPS)]
    as_they_do, as_the_paper = (
        (F.normalize(products[0], p) - F.normalize(products[1], p)).square().mean() for p in (1, 2)
    )
    assert as_they_do.item() == pytest.approx(GOLDEN["similarity_preserving"], rel=2e-5)
    assert similarity_preserving(*MAPS).item() == pytest.approx(as_the_paper.item(), rel=2e-5)


def test_the_fusion_of_reviewkd_is_torchdistills():
    fused = filled(Fusion(4, 6, 5, joins=True), 2)(MAPS[0], numbers(3, 6, 6, 4, 4), (8, 8))
    assert [out.square().mean().item() for out in fused] == pytest.approx(GOLDEN["fusion"], rel=1e-4)


def test_crd_gives_torchdistills_loss_constants_and_bank():
    """Over two steps: the second is compared with what the first left in the banks, and with the first one's Z."""
    ours = Contrast(DIM, DIM, IMAGES, DIM, NEGATIVES, TEMPERATURE, MOMENTUM)
    for embed in (ours.embed_student, ours.embed_teacher):
        embed.weight.data, embed.bias.data = torch.eye(DIM), torch.zeros(DIM)
    ours.student_bank.copy_(F.normalize(numbers(4, IMAGES, DIM)))
    ours.teacher_bank.copy_(F.normalize(numbers(5, IMAGES, DIM)))
    steps = [ours(*(numbers(seed + step, 6, DIM) for seed in (6, 8)), INDICES, OTHERS).mean() for step in range(2)]
    assert [step.item() for step in steps] == pytest.approx(GOLDEN["crd"]["steps"], rel=2e-5)
    assert ours.log_z.exp().tolist() == pytest.approx(GOLDEN["crd"]["z"], rel=1e-5)
    assert ours.student_bank[3].tolist() == pytest.approx(GOLDEN["crd"]["bank"], abs=1e-6)


def test_the_goldens_are_what_torchdistill_says_today():
    again = dict(leaves(made()))
    assert again.keys() == dict(leaves(GOLDEN)).keys()
    for name, value in leaves(GOLDEN):
        assert again[name] == pytest.approx(value, rel=1e-5, abs=1e-6), name


def leaves(golden: dict[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in golden.items():
        yield from leaves(value, f"{above}{name}/") if isinstance(value, dict) else [(above + name, value)]
