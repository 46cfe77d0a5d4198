from PIL import Image

from reflux.components.advice.tune.figure import draw
from tests.unit.advice.tune.test_result import result, row


def test_a_study_is_drawn_with_its_front_and_gates(tmp_path):
    file = tmp_path / "front.png"
    draw(result(row(0, 0.84, 190, 0.83), row(1, 0.8, 60, ships="onnx-int8"), row(2, 0.6, 9)), file)
    with Image.open(file) as picture:
        assert min(picture.size) > 400
        assert picture.convert("L").getextrema() == (0, 255) or picture.convert("L").getextrema()[0] < 100
    draw(result(row(0, 0.1, 190), present=None), file)
