import numpy as np
import pytest
from PIL import Image, ImageDraw

from reflux.components.advice.plan.choice import Answers
from reflux.components.advice.plan.probe import FEWEST, ask, leave_one_out, may_mirror, smallest_as_good
from reflux.components.advice.plan.profile import Look

MODEL = ("tf_efficientnet_lite0", "pypi", "cpu", 1)


def look(draw, count: int = 60, split: str = "train") -> Look:
    """Gray pictures of two classes, each drawn with its label and a random generator."""
    rng, pictures = np.random.default_rng(0), []
    for row in range(count):
        picture = Image.new("RGB", (32, 32))
        draw(ImageDraw.Draw(picture), row % 2, rng)
        pictures.append(np.asarray(picture) // 2 + rng.integers(0, 60, (32, 32, 1)))
    splits = np.array([split] * count, dtype=object)
    return Look(np.stack(pictures).astype(np.uint8), np.arange(count) % 2, splits, np.arange(count, dtype=np.uint64))


def arrow(draw, label, rng):
    """A triangle that points left or right: what its mirror image is not."""
    x, y = rng.integers(4, 10, 2)
    tip, base = (x, x + 16) if label else (x + 16, x)
    draw.polygon([(int(tip), int(y + 8)), (int(base), int(y)), (int(base), int(y + 16))], fill="white")


def shape(draw, label, rng):
    x, y = map(int, rng.integers(4, 10, 2))
    (draw.ellipse if label else draw.rectangle)([x, y, x + 16, y + 16], fill="white")


def test_leaving_one_out_is_what_fitting_to_all_others_gives():
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 3, 40)
    features = rng.normal(0, 1, (40, 60)) + labels[:, None] * 0.4
    others = features + rng.normal(0, 0.8, features.shape)
    plain, other = leave_one_out(features, labels, others)
    mean, scale = features.mean(0), features.std(0) + 1e-6
    x, z = (np.hstack([(each - mean) / scale, np.ones((40, 1))]) for each in (features, others))
    y = np.eye(3)[labels] - np.eye(3)[labels].mean(0)
    kernel = x @ x.T
    candidates = []
    for penalty in (0.003, 0.03, 0.3, 3.0):
        ridge, said, error = penalty * np.trace(kernel) / 40, [], 0.0
        for row in range(40):
            rest = np.delete(np.arange(40), row)
            weights = x[rest].T @ np.linalg.solve(kernel[np.ix_(rest, rest)] + ridge * np.eye(39), y[rest])
            error += float(((x[row] @ weights - y[row]) ** 2).sum())
            shares = np.eye(3)[labels].mean(0)
            said.append([(each[row] @ weights + shares).argmax() == labels[row] for each in (x, z)])
        candidates.append((error, said))
    expected = np.array(min(candidates, key=lambda one: one[0])[1])
    assert np.array_equal(np.stack([plain, other], 1), expected)
    assert 0.4 < plain.mean() < 1


@pytest.mark.slow
def test_arrows_are_not_mirrored_and_shapes_are():
    arrows = ask(look(arrow), ("left", "right"), (64,), *MODEL)
    assert arrows.flip is False
    assert arrows.flip_reason.startswith("not mirrored: a linear probe gets ")
    shapes = ask(look(shape, 120), ("box", "ball"), (64, 80), *MODEL)
    assert shapes.flip is True
    assert shapes.teacher_size == 64


@pytest.mark.parametrize("split", ["test", "unlabeled"])
def test_only_train_and_val_are_asked(split):
    assert ask(look(arrow, split=split), ("left", "right"), (64,), *MODEL) == Answers()


def test_few_images_and_random_weights_are_not_asked():
    assert ask(look(arrow, FEWEST - 2), ("left", "right"), (64,), *MODEL) == Answers()
    assert ask(look(arrow), ("left", "right"), (64,), "tf_efficientnet_lite0", "random", "cpu", 1) == Answers()


def right(*counts: int) -> np.ndarray:
    """So many right and wrong answers, one after the other."""
    return np.concatenate([np.full(count, number % 2 == 0) for number, count in enumerate(counts)])


def test_the_smallest_size_within_one_standard_error_is_taken():
    at = {80: right(86, 14), 112: right(90, 10), 144: right(88, 12)}
    assert smallest_as_good(at)[0] == 112
    assert smallest_as_good({**at, 80: right(88, 12)})[0] == 80
    assert smallest_as_good(at)[1] == "a linear probe gets 86.0% at 80, 90.0% at 112, 88.0% at 144 (±3.1%)"


def test_a_drop_that_chance_explains_is_none():
    plain = right(540, 60)
    assert may_mirror(plain, right(526, 34, 8, 32))[0] is True
    assert may_mirror(plain, right(480, 120))[0] is False
    assert may_mirror(right(480, 120), plain)[0] is True, "better mirrored is no reason against it"


def test_too_few_images_to_exclude_a_loss_leave_it_open():
    mirrored, reason = may_mirror(right(82, 18), right(79, 21))
    assert mirrored is None
    assert reason == "a linear probe gets 82.0% of the images and 79.0% of their mirror images, too few to tell"
    assert may_mirror(right(82, 18), right(62, 38))[0] is False, "a large loss shows even so"
