"""How a run on a set is started and read: the commands of a user, and what their files and words say."""

import json
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from benchmarks.datasets import runs
from benchmarks.datasets.runs import Outcome, Run, keep_run, outcome_of, planned_minutes, read_runs, run

PLAN = "time     7 min 30 s of 10 min   ingest 5 s, finetune 2 min 10 s\n"


def files(checkout: Path, outcome: str) -> None:
    (checkout / "artifacts/evaluate").mkdir(parents=True)
    (checkout / "artifacts/promote").mkdir()
    figures = {"accuracy": 0.84, "size_bytes": 204800}
    metrics = {"teacher": {"accuracy": 0.9}, "shipped": {"onnx": figures}, "control": {"accuracy": 0.8}}
    metrics["gain"] = {"ci95": [0.01, 0.07]}
    (checkout / "artifacts/evaluate/metrics.json").write_text(json.dumps(metrics))
    reasons = [
        {"sentence": "Size 200 KB is within the maximum.", "passed": True},
        {"sentence": "Accuracy 0.84 is below the minimum of 0.9.", "passed": False},
    ]
    decision = {"outcome": outcome, "reasons": reasons}
    (checkout / "artifacts/promote/decision.json").write_text(json.dumps(decision))


@pytest.mark.parametrize(
    ("text", "minutes"),
    [
        (PLAN, 7.5),
        ("42 s of 3 min", 0.7),
        ("1 h 05 min of 90 min", 65.0),
        ("5 of 10 files\n 8 min 00 s of 10 min", 8.0),
        ("nothing foreseen", None),
    ],
)
def test_planned_minutes_are_those_that_data_add_prints(text: str, minutes: float | None):
    assert planned_minutes(text) == (None if minutes is None else pytest.approx(minutes))


def test_a_champion_needs_no_sentence_and_a_refused_student_has_its_reasons(tmp_path: Path):
    files(tmp_path / "promoted", "promoted")
    files(tmp_path / "refused", "rejected")
    champion, refused = (outcome_of(tmp_path / name, 7.5, 8.0) for name in ("promoted", "refused"))
    assert champion.accuracy == {
        name: pytest.approx(value) for name, value in zip(("teacher", "student", "control"), (90, 84, 80), strict=True)
    }
    assert (champion.size_kb, champion.sentence, champion.ended_well) == (200, "", True)
    assert champion.gain_ci95 == pytest.approx([1, 7])
    assert refused.sentence == "Accuracy 0.84 is below the minimum of 0.9."


@pytest.fixture
def commands(monkeypatch) -> list[tuple[str, list[str]]]:
    """The commands of a run and the seed at each, in checkouts whose pipeline is only recorded."""
    seen: list[tuple[str, list[str]]] = []

    def copy_checkout(folder: Path) -> Path:
        (folder / "params.yaml").write_text("project: {name: x}\nseed: 0\n")
        return folder

    def reflux(checkout: Path, words: list[str]) -> "CompletedProcess[str]":
        seen.append(((checkout / "params.yaml").read_text().splitlines()[1], words))
        if words == ["run"]:
            files(checkout, "promoted")
        return CompletedProcess(words, 0, PLAN, "")

    monkeypatch.setattr(runs, "copy_checkout", copy_checkout)
    monkeypatch.setattr(runs, "_reflux", reflux)
    return seen


def test_nothing_but_the_seed_is_set(commands, tmp_path: Path):
    done = run(tmp_path / "flowers", 3, 10)
    assert commands == [("seed: 3", ["data", "add", str(tmp_path / "flowers")]), ("seed: 3", ["run"])]
    assert done.planned_min == 7.5
    run(tmp_path / "flowers", 3, 2.5)
    assert commands[2][1][-2:] == ["--minutes", "2.5"]


def test_a_kept_run_takes_the_place_of_its_like_alone(tmp_path: Path):
    def of(seed: int, minutes: float, digest: str, size_kb: float) -> Run:
        return Run("icons", seed, minutes, digest, {"test": 5}, "abc", Outcome({}, size_kb, 1, 2, "", True, [1, 2]))

    kept = [of(0, 10, "a", 1), of(0, 5, "a", 3), of(1, 10, "a", 4)]
    for each in kept:
        keep_run(each, tmp_path)
    for digest in "ab":  # the set's images may have changed
        again = of(0, 10, digest, 9)
        assert keep_run(again, tmp_path) == read_runs(tmp_path)
        assert sorted(read_runs(tmp_path), key=str) == sorted([again, *kept[1:]], key=str)


@pytest.mark.parametrize(("code", "ended_well"), [(2, True), (1, False)])
def test_a_user_error_is_a_sentence_and_a_crash_is_none(
    commands, tmp_path: Path, monkeypatch, code: int, ended_well: bool
):
    errors = f"a warning\nError: ingest: {tmp_path}/flowers has one class: give two.\nSee the log.\n"
    monkeypatch.setattr(runs, "_reflux", lambda *_: CompletedProcess([], code, "", errors))
    expected = Outcome({}, None, None, None, "ingest: flowers has one class: give two.", ended_well)
    assert run(tmp_path / "flowers", 0, 10) == expected
