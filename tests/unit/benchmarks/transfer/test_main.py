"""The grid of strategies and adaptations on digits."""

from pathlib import Path

import pytest
from PIL import Image

from benchmarks.harness.results import write
from benchmarks.transfer import __main__ as transfer
from benchmarks.transfer.few_digits import MNIST
from benchmarks.transfer.grid import figures_of
from reflux.components.core.params.file import check_overrides


@pytest.mark.parametrize("labels", transfer.LABELS)
def test_with_mnist_or_without_all_take_about_as_many_steps(labels: int):
    alone = transfer.epochs(labels, with_mnist=False) * max(1, 10 * labels // min(transfer.BATCH, 10 * labels))
    both = transfer.epochs(labels, with_mnist=True) * ((10 * labels + 850) // (2 * transfer.BATCH))
    assert alone == pytest.approx(transfer.STEPS, rel=0.03)
    assert both == pytest.approx(transfer.STEPS, rel=0.1)


@pytest.mark.parametrize("name", transfer.STRATEGIES)
def test_each_cell_is_one_that_the_params_allow(name: str):
    strategy = transfer.STRATEGIES[name]
    for method in transfer.ADAPTATIONS.values() if strategy.adapts else [()]:
        domain = f"ingest.source_domain={MNIST}"
        settings = (*transfer.RECIPE, *transfer.STARTS[strategy.start], domain, *strategy.settings, *method)
        params = check_overrides(settings)
        assert params.pretrain.mode == {transfer.RANDOM: "none"}.get(strategy.start, strategy.start)
        assert params.finetune.adaptation in transfer.ADAPTATIONS


def test_the_tables_have_each_strategy_and_what_mnist_and_a_method_add(tmp_path: Path):
    adapted = [f"{name}, {method}" for name in transfer.ADAPTED_ARMS for method in transfer.ADAPTATIONS]
    one = {arm: float(number) for number, arm in enumerate([*transfer.STRATEGIES, *adapted])}
    write("transfer", figures_of({labels: {0: one} for labels in transfer.LABELS}, transfer.PAIRS), tmp_path)
    text = transfer.both(tmp_path)
    assert "| | 1 label a class | 5 labels a class | 10 labels a class | 50 labels a class |\n" in text
    assert "| full | 2.0 | 2.0 | 2.0 | 2.0 |\n" in text
    assert "| | the digits alone | `none` | `dan` | `deep-coral` | `dann` |\n" in text
    assert "| 5 labels, full | 2.0 | 11.0 | 12.0 | 13.0 | 14.0 |\n" in text
    assert "| 5 labels, full | +9.0 | +1.0 | +2.0 | +3.0 |\n" in text
    transfer.draw(tmp_path, tmp_path / "transfer.png")
    assert Image.open(tmp_path / "transfer.png").width > 1000
