from dataclasses import replace

import pytest

from reflux.components.advice.tune.result import HOME, Result, Row, losses_of, read, to_repeat, write
from reflux.components.core.errors import UserError

GATES = {"accuracy": {"min": 0.8}, "size_kb": {"max": 200}, "gain": {"min": 0.0}}


def row(number: int, accuracy: float, size_kb: float, *repeats: float, ships: str = "onnx") -> Row:
    figures = {"accuracy": accuracy, "size_kb": size_kb, "latency_ms_p95": size_kb / 100, "params": 10 * size_kb}
    others = tuple({**figures, "accuracy": each} for each in repeats)
    params = {"student.model": f"net{number}", "student.image_size": 28, "student.steps": 100, "compress.ships": ships}
    return Row(number, params, figures, 10.0, others)


def result(*rows: Row, present: int | None = 0, **more) -> Result:
    facts = {"counts": {}, "whys": {}, "importance": {}, "store": "k", "study": "s", "seconds": 1.0} | more
    return Result(rows, ("accuracy", "size_kb"), 500, GATES, present, **facts)


def test_what_is_chosen_passes_its_gates_and_is_as_good_as_the_present_student():
    rows = [row(0, 0.84, 190), row(1, 0.841, 60), row(2, 0.82, 40), row(3, 0.86, 199), row(4, 0.9, 210), row(5, 0.7, 5)]
    found = result(*rows)
    assert found.bar == pytest.approx(0.84)
    assert [each.number for each in found.passing] == [1, 0, 3], "2 is worse than the present one"
    assert found.choices == {"smallest": 1, "best": 3, "knee": 1}
    assert [each.number for each in found.front] == [5, 2, 1, 3, 4]
    assert [reason.gate for reason in found.failed(rows[4])] == ["size_kb"], "gain is left to reflux run"


def test_without_a_present_student_that_passes_the_gates_alone_decide():
    assert result(row(0, 0.79, 190), row(1, 0.81, 60)).choices["smallest"] == 1
    assert result(row(3, 0.81, 60), present=None).bar is None
    assert result(row(0, 0.79, 190)).choices == {}


def test_other_seeds_replace_what_the_search_saw():
    lucky = row(1, 0.86, 60, 0.79, 0.79)
    found = result(row(0, 0.84, 190, 0.84, 0.82), lucky, row(2, 0.832, 80))
    assert lucky.expected["accuracy"] == pytest.approx(0.79)
    assert lucky.expected["size_kb"] == 60
    assert found.bar == pytest.approx(0.83)
    assert found.choices == {"smallest": 2, "best": 2, "knee": 2}
    assert found.luck is None, "what is chosen was not repeated yet"
    assert result(row(0, 0.84, 190, 0.84), row(1, 0.86, 60, 0.85)).luck == pytest.approx(0.01)
    assert result(row(0, 0.84, 190, 0.82)).luck is None, "no search chose the present student"


def test_what_would_be_chosen_is_repeated_the_least_known_first():
    rows = [row(0, 0.84, 190, 0.84), row(1, 0.84, 60, 0.84, 0.84), row(3, 0.86, 199)]
    assert [each.number for each in to_repeat(result(*rows))] == [3, 0]
    assert [each.number for each in to_repeat(result(*rows), begun=[0])] == [3]
    assert [each.number for each in to_repeat(result(*rows), begun=[3])] == [0, 3]
    rows[2] = row(3, 0.86, 199, 0.86, 0.86)
    assert [each.number for each in to_repeat(result(rows[1], rows[2], present=None))] == []


def test_less_of_a_loss_is_better():
    assert losses_of({"accuracy": 0.8, "ece": 0.1, "size_kb": 9}, ("accuracy", "ece", "size_kb")) == (-0.8, 0.1, 9)


def test_it_is_kept_and_read_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="There is no study yet"):
        read()
    found = result(row(0, 0.84, 190, 0.83), row(1, 0.8, 60, ships="onnx-int8"), whys={"size_kb 300": 2})
    write(found)
    assert read() == found
    assert read().rows[1].kind == "onnx_int8"
    assert list(HOME.iterdir()) == [HOME / "result.json"]
    kept = (HOME / "result.json").read_text()
    for name in ('"study"', '"figures"', '"rows"', '"objectives"'):
        (HOME / "result.json").write_text(kept.replace(name, '"margin"'))
        with pytest.raises(UserError, match="is damaged, or of another version of Reflux: run `reflux tune` again"):
            read()
    (HOME / "result.json").write_text(kept[:-20])
    with pytest.raises(UserError, match="is damaged, or of another version of Reflux: run `reflux tune` again"):
        read()
    assert found.row(7) is None
    assert replace(found, rows=()).choices == {}
