"""The ranking and its file, which the command reads without importing torch."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from reflux.components.core.artifacts import read_json, write_json

FOLDER = Path(".reflux/teachers")
RANKING, PICTURE = FOLDER / "ranking.json", FOLDER / "teachers.png"
_ALPHA = 0.05


@dataclass(frozen=True)
class Row:
    """A network with weights at an image size.

    Attributes:
        name, model, weights, license: of the candidate.
        image_size: in pixels.
        accuracy: of the probe, with its 95 % interval from ``low`` to ``high``.
        recalls: of each class, in label order; None of a class without an image.
        p_value: McNemar's, that it errs as often as the best row.
        parameters: with the head for this dataset.
        seconds: for 1,000 images, inference alone.
        run_seconds: of a whole ``reflux run`` with this teacher.
        commercial: False if the license forbids it.
        knows: the checkpoint has this dataset's classes, so that it may have learned these very images.
    """

    name: str
    model: str
    weights: str
    license: str | None
    image_size: int
    accuracy: float
    low: float
    high: float
    recalls: tuple[float | None, ...]
    p_value: float
    parameters: int
    seconds: float
    run_seconds: float
    commercial: bool
    knows: bool


@dataclass(frozen=True)
class Ranking:
    """The rows, the best first.

    Attributes:
        images: that each row was asked about.
        computed: images, over all rows, whose features were not kept.
        left_out: what is not among the rows, and why.
    """

    rows: tuple[Row, ...]
    classes: tuple[str, ...]
    images: int
    computed: int
    left_out: tuple[str, ...]


def write(ranking: Ranking) -> None:
    """Keep the ranking."""
    write_json(RANKING, asdict(ranking))


def read() -> Ranking:
    """Read the ranking that was kept last.

    Raises:
        UserError: there is none, or the file is damaged.
    """
    facts = read_json(RANKING)
    rows = [Row(**each | {"recalls": tuple(each["recalls"])}) for each in facts["rows"]]
    tuples = {name: tuple(facts[name]) for name in ("classes", "left_out")}
    return Ranking(**facts | tuples | {"rows": tuple(rows)})


def cheapest_as_good(rows: Sequence[Row]) -> Row:
    """The row with the shortest run among those that are not clearly worse than the best of the ranking.

    Of rows that all are, the first, which is the best of them.
    """
    good = [each for each in rows if each.p_value >= _ALPHA] or rows[:1]
    return min(good, key=lambda each: each.run_seconds)
