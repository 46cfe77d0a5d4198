"""Numbers and rules that pages state, against the code."""

import re

import pytest
import torch

from reflux.components.advice.plan.lesson import FEW_LABELS
from reflux.components.advice.plan.teacher import MANY_LABELS
from reflux.components.core.params.distill import METHODS, Loss
from reflux.components.stages.distill.losses import logits
from tests.workspaces import ROOT


def text(page: str) -> str:
    return " ".join((ROOT / page).read_text(encoding="utf-8").split())


def test_the_comparison_counts_the_losses_and_the_schedules():
    losses = sum(issubclass(method, Loss) for method in METHODS.values())
    schedules = len(METHODS) - losses - 1  # logit standardization is neither
    counted = f"{losses} losses, logit standardization, {schedules} schedules"
    assert counted in text("infra/docs/pages/comparison.md")


def test_the_page_of_data_has_the_labels_that_plans_are_made_by():
    page = text("infra/docs/pages/how-to/data.md")
    assert f"from {MANY_LABELS:,} labeled gray training images on" in page
    assert f"at most {FEW_LABELS} labels a class" in page


def test_losses_of_logits_are_sums_over_the_classes_but_for_the_one_that_the_page_names():
    exceptions = re.search(
        r"Sums over classes, not means.*?Only (`[^`]+`)", text("components/stages/distill/README.md")
    )
    assert exceptions
    assert exceptions[1] == "`mse-logits`"
    student, teacher = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 1.0]])
    # Twice the classes, each as likely as its twin: sums of probabilities stay, and so does a mean of squares.
    twice = [torch.cat([each, each], 1) for each in (student, teacher)]
    assert logits.kd(*twice, 1.0).item() == pytest.approx(logits.kd(student, teacher, 1.0).item())
    assert logits.mse_logits(*twice).item() == pytest.approx(logits.mse_logits(student, teacher).item())
    assert logits.mse_logits(student, teacher).item() == pytest.approx((2**2 + 1) / 2 / 2)
