"""The outcome of a search and its file, which the command reads without importing torch or Optuna."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from reflux.components.advice.tune.front import front, knee
from reflux.components.core.artifacts import read_json, write_json
from reflux.components.core.contract import kind_of
from reflux.components.core.errors import UserError
from reflux.components.registry.policy.gates import Bounds, Reason, thresholds

HOME = Path(".reflux/tune")
RESULT, FIGURE, TRIALS = HOME / "result.json", HOME / "front.png", HOME / "trials.csv"

# What a search can improve, and whether more of it is better. All are measured on validation images or on files.
OBJECTIVES = {
    **{"accuracy": True, "macro_f1": True, "worst_class_recall": True, "ece": False},
    **{"size_kb": False, "latency_ms_p95": False, "params": False},
}
DEFAULT_OBJECTIVES = ("accuracy", "size_kb", "latency_ms_p95")
OF_FILES = ("size_kb", "latency_ms_p95", "params")  # those that are known before training
CHOICES = ("smallest", "best", "knee")
REPEATED = 2  # trainings with other seeds, of what would be chosen


@dataclass(frozen=True)
class Row:
    """A student that was trained to its end.

    Attributes:
        number: of its trial.
        params: what it changes in ``params.yaml``, by dotted name.
        figures: of its file on the validation images, by the names of gates.
        seconds: that its trial took.
        repeats: the figures with other seeds; chosen by none of them, they are no better than they should be. Of the
            present student, which no search chose, the first ones count as well.
    """

    number: int
    params: Mapping[str, Any]
    figures: Mapping[str, float]
    seconds: float
    repeats: tuple[Mapping[str, float], ...] = ()

    @property
    def expected(self) -> dict[str, float]:
        """The figures that another training run is expected to have: the mean over the repeats, if there are any."""
        of_files = {name: self.figures[name] for name in OF_FILES}
        return {name: mean(each[name] for each in self.repeats or (self.figures,)) for name in self.figures} | of_files

    @property
    def luck(self) -> float | None:
        """How much accuracy the repeats lost against the search; None without any."""
        return self.figures["accuracy"] - self.expected["accuracy"] if self.repeats else None

    @property
    def kind(self) -> str:
        """The key in ``FILES`` of the file that ships."""
        return kind_of(self.params["compress.ships"])

    def losses(self, objectives: Sequence[str]) -> tuple[float, ...]:
        """The objectives, of each less is better."""
        return losses_of(self.expected, objectives)


def losses_of(figures: Mapping[str, float], objectives: Sequence[str]) -> tuple[float, ...]:
    """Figures as losses, of which less is better."""
    return tuple(-figures[name] if OBJECTIVES[name] else figures[name] for name in objectives)


def failed(figures: Mapping[str, float], kind: str, gates: Bounds, images: int) -> list[Reason]:
    """The gates that a file fails; those on figures that were not measured here are left to ``reflux run``.

    Args:
        figures: of the file.
        kind: a key of ``FILES``.
        gates: of the registry's policy.
        images: that an accuracy was measured on.
    """
    shipped = {**figures, "size_bytes": 1024 * figures["size_kb"]}
    metrics = {"test": {"n": images}, "ships": {"kind": kind}, "shipped": {kind: shipped}}
    return [reason for reason in thresholds(metrics, gates) if reason.passed is False]


@dataclass(frozen=True)
class Result:
    """What a search has found.

    Attributes:
        rows: the students that were trained to their end, by number.
        objectives: that it had.
        images: validation images.
        gates: of the registry's policy.
        present: the number of the row with the present params; None if the space leaves them out.
        counts: of the trials that were trained, stopped early, refused untrained, and repeated.
        whys: why trials were stopped or refused, the most frequent first.
        importance: of each knob for the first objective, as shares.
        store: of the soft labels: the key of what decides them.
        study: its name in the storage.
        seconds: of all of its trials.
    """

    rows: tuple[Row, ...]
    objectives: tuple[str, ...]
    images: int
    gates: Mapping[str, Mapping[str, float]]
    present: int | None
    counts: Mapping[str, int]
    whys: Mapping[str, int]
    importance: Mapping[str, float]
    store: str
    study: str
    seconds: float

    def row(self, number: int) -> Row | None:
        """The row of this number."""
        return next((row for row in self.rows if row.number == number), None)

    def failed(self, row: Row) -> list[Reason]:
        """The gates that a row is expected to fail."""
        return failed(row.expected, row.kind, self.gates, self.images)

    @property
    def bar(self) -> float | None:
        """The accuracy of the present student, which a row must reach; None if that passes no gates itself.

        Nothing of the champion's margin is spent here: the test split needs it to show that a student is no worse.
        """
        present = self.row(self.present) if self.present is not None else None
        if present is None or self.failed(present):
            return None
        return present.expected["accuracy"]

    def passes(self, row: Row) -> bool:
        """Tell if a row is expected to pass the gates, and to be no worse than the present student."""
        return not self.failed(row) and row.expected["accuracy"] >= (self.bar if self.bar is not None else -math.inf)

    @property
    def luck(self) -> float | None:
        """The winner's curse: how much accuracy the chosen ones lost, on average, when they were trained again."""
        chosen = [row for number in self.choices.values() if number != self.present and (row := self.row(number))]
        lost = [row.luck for row in chosen if row.luck is not None]
        return mean(lost) if lost else None

    @property
    def front(self) -> list[Row]:
        """The rows that no other one beats in every objective, the smallest file first."""
        places = front([row.losses(self.objectives) for row in self.rows])
        return sorted((self.rows[place] for place in places), key=lambda row: row.figures["size_kb"])

    @property
    def passing(self) -> list[Row]:
        """All rows that pass, the smallest file first, of equal ones the most accurate."""
        passing = [row for row in self.rows if self.passes(row)]
        return sorted(passing, key=lambda row: (row.expected["size_kb"], -row.expected["accuracy"]))

    def chosen(self, choice: str) -> Row | None:
        """The row that a choice stands for, of those that pass; None if none does.

        Args:
            choice: smallest, best (the most accurate) or knee (of the front).
        """
        passing = self.passing
        if not passing:
            return None
        if choice == "smallest":
            return passing[0]
        if choice == "best":
            return max(passing, key=lambda row: (row.expected["accuracy"], -row.expected["size_kb"]))
        points = [row.losses(self.objectives) for row in passing]
        places = front(points)
        return passing[places[knee([points[place] for place in places])]]

    @property
    def choices(self) -> dict[str, int]:
        """The number of the row that each choice stands for."""
        chosen = {choice: self.chosen(choice) for choice in CHOICES}
        return {choice: row.number for choice, row in chosen.items() if row is not None}


def only_the_present(result: Result) -> bool:
    """Tell if something passes, and that is the present student alone."""
    return set(result.choices.values()) == {result.present}


def to_repeat(result: Result, begun: Sequence[int] = ()) -> list[Row]:
    """The rows that are to be trained with other seeds before anything is said of them, the least known first.

    What is chosen may change with each repeat: another row is then the next to be repeated.

    Args:
        result: what was found so far.
        begun: the row's number, of each repeat that has begun and not ended.
    """
    numbers = [result.present, *result.choices.values()]
    rows = [row for number in dict.fromkeys(numbers) if number is not None and (row := result.row(number))]
    known = {row.number: len(row.repeats) + begun.count(row.number) for row in rows}
    return sorted((row for row in rows if known[row.number] < REPEATED), key=lambda row: known[row.number])


def write(result: Result) -> None:
    """Keep the result."""
    write_json(RESULT, asdict(result))


def read() -> Result:
    """Read the result that was kept last.

    Raises:
        UserError: there is none, or the file is damaged or of another version.
    """
    if not RESULT.is_file():
        raise UserError("There is no study yet: run `reflux tune --minutes 20`.")
    try:
        facts = read_json(RESULT)
        rows = tuple(Row(**each | {"repeats": tuple(each["repeats"])}) for each in facts["rows"])
        return Result(**facts | {"rows": rows, "objectives": tuple(facts["objectives"])})
    except (UserError, KeyError, TypeError):
        raise UserError(f"{RESULT} is damaged, or of another version of Reflux: run `reflux tune` again.") from None
