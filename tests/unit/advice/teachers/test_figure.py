from pathlib import Path

from PIL import Image

from reflux.components.advice.teachers.figure import accuracy_against_cost
from tests.unit.flows.report.test_teachers import BEST, SMALL


def test_the_picture_is_written_and_the_same_rows_are_the_same_file(tmp_path: Path):
    for name in ("one.png", "two.png"):
        accuracy_against_cost([BEST, SMALL], tmp_path / name)
    assert Image.open(tmp_path / "one.png").size[0] > 500
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    accuracy_against_cost([BEST], tmp_path / "two.png")
    assert (tmp_path / "one.png").read_bytes() != (tmp_path / "two.png").read_bytes()
