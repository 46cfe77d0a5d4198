import ast
import inspect
from pathlib import Path

import pytest

from benchmarks.datasets.chosen import chosen, in_short, section
from benchmarks.datasets.sets import SETS
from reflux.components.advice.plan import lesson, rules, teacher
from reflux.components.core.training import state


def test_every_constant_of_the_rules_says_on_which_images_it_was_chosen():
    found = [name for each in chosen() for name in each.names]
    own = [
        target.id
        for module in (rules, lesson, teacher, state)
        for node in ast.parse(inspect.getsource(module)).body
        if isinstance(node, ast.Assign | ast.AnnAssign)
        for target in ast.walk(node)
        if isinstance(target, ast.Name) and isinstance(target.ctx, ast.Store) and not target.id.startswith("_")
    ]
    assert found == own
    assert len(own) > 40


def test_constants_chosen_on_test_images_name_sets_of_the_benchmark():
    for each in chosen():
        if each.on_test_images:
            assert any(name in each.on for name in SETS), each


@pytest.mark.parametrize(
    "text",
    ["# It helps.\nWEIGHT = 0.3\n", "# Chosen on: a whim\nWEIGHT = 0.3\n", "# Chosen on: no images\n\nWEIGHT = 1\n"],
)
def test_a_constant_that_does_not_say_it_is_refused(tmp_path: Path, text: str):
    file = tmp_path / "rules.py"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r'rules\.py lacks "# Chosen on: …" above WEIGHT'):
        chosen([file])


def test_those_of_test_images_come_first_and_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = tmp_path / "rules.py"
    file.write_text(
        "# Why.\n# Chosen on: validation images of cards\nSTEPS, VISITS = 4, 5\n"
        "# Chosen on: test images of emoji; tried on: test images of cards\nWEIGHT: float = 0.3  # of it\n",
        encoding="utf-8",
    )
    monkeypatch.setattr("benchmarks.datasets.chosen.chosen", lambda: chosen([file]))
    assert section(tmp_path).splitlines()[2:] == [
        "| `WEIGHT` | test images of emoji | test images of cards |",
        "| `STEPS`, `VISITS` | validation images of cards |  |",
    ]
    assert in_short(tmp_path).startswith("Of the 3 constants that decide what is planned and kept, 1 were [chosen on")
