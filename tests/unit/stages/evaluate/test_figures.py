import numpy as np
import pytest
from PIL import Image

from reflux.components.stages.evaluate import figures, metrics

NASTY = ["$x^2_{$", "a|b", "<b>", "a very long class name that goes on and on", "naïve ✓"]
MODELS = ("teacher", "student", "control")


def picture(path):
    image = Image.open(path)
    image.load()
    return image


def history(rows: int, scale: float = 1.0):
    steps = np.arange(1, rows + 1)
    return {
        "images": steps * 100.0 * scale,
        "train_loss": 1 / steps,
        "val_loss": 1.2 / steps,
        "val_accuracy": 1 - 0.5 / steps,
    }


@pytest.mark.parametrize("rows", [1, 5, 100])
def test_learning_curves_of_any_length(tmp_path, rows):
    figures.learning_curves({name: history(rows, 1 + i) for i, name in enumerate(MODELS)}, tmp_path / "a.png")
    assert picture(tmp_path / "a.png").width > 800


@pytest.mark.parametrize("classes", [NASTY, ["only"], [f"class {i}" for i in range(60)]])
def test_confusion_and_recall_of_few_and_many_classes(tmp_path, classes):
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 30, (len(classes), len(classes)))
    figures.confusion_matrix(counts, classes, tmp_path / "confusion.png")
    recalls = {name: np.clip(metrics.recalls(counts) + rng.normal(0, 0.1, len(classes)), 0, 1) for name in MODELS}
    figures.class_recall(recalls, classes, tmp_path / "recall.png")
    for name in ("confusion.png", "recall.png"):
        assert 200 < picture(tmp_path / name).height < 2500


def test_a_class_without_test_images_is_left_out(tmp_path):
    three = {name: np.array([0.5, 0.9, 0.7]) for name in MODELS}
    figures.class_recall(three, ["a", "b", "c"], tmp_path / "three.png")
    two = {name: np.array([0.5, np.nan, 0.7]) for name in MODELS}
    figures.class_recall(two, ["a", "b", "c"], tmp_path / "two.png")
    assert picture(tmp_path / "two.png").height < picture(tmp_path / "three.png").height


def test_reliability_of_models_that_are_always_sure(tmp_path):
    logits, labels = np.eye(3)[[0, 1, 2] * 10] * 50, np.array([0, 1, 2] * 10)
    bins = {name: metrics.reliability(logits, labels) for name in MODELS}
    shares = np.zeros(metrics.BINS)
    shares[-1] = 1
    figures.reliability_diagram(bins, dict.fromkeys(MODELS, 0.0), shares, tmp_path / "a.png")
    assert picture(tmp_path / "a.png").height > 600


def test_size_against_accuracy_of_equals(tmp_path):
    figures.size_accuracy(dict.fromkeys((*MODELS, "student, int8"), (1024, 1.0)), tmp_path / "a.png")
    assert picture(tmp_path / "a.png").width > 600


@pytest.mark.parametrize(("count", "channels"), [(0, 1), (1, 3), (3, 1), (15, 3)])
def test_any_number_of_mistakes(tmp_path, count, channels):
    images = np.random.default_rng(0).integers(0, 256, (count, 8, 8, channels), dtype=np.uint8)
    captions = [(figures.clipped(NASTY[i % 5]), figures.clipped(NASTY[(i + 1) % 5])) for i in range(count)]
    figures.mistakes(images, captions, "Mistakes", tmp_path / "a.png")
    assert picture(tmp_path / "a.png").width > 100


@pytest.mark.parametrize(("count", "channels"), [(1, 1), (8, 3)])
def test_strips_of_few_and_many_images(tmp_path, count, channels):
    images = np.random.default_rng(0).integers(0, 256, (count, 8, 8, channels), dtype=np.uint8)
    figures.strips([("as it is\n90 %", images), (NASTY[3], images[:1])], "Rows", tmp_path / "a.png")
    assert picture(tmp_path / "a.png").height > 200


def test_the_same_figure_is_the_same_file(tmp_path):
    for name in ("a.png", "b.png"):
        figures.size_accuracy({"teacher": (10**7, 0.9), "student": (10**5, 0.89)}, tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_every_model_has_its_own_color():
    assert len(set(figures.COLORS.values())) == len(figures.COLORS)
