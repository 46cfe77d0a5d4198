"""What the end of a run prints, and its exit code."""

import pytest
from rich.console import Console

from reflux.flows.commands import run
from reflux.flows.outcome import StageFailed, StageOutcome
from reflux.flows.report.result import Release, Result

METRICS = {
    "test": {"n": 5000},
    "gain": {"accuracy": 0.03, "ci95": [0.02, 0.04], "p_value": 0.001},
    "student": {"accuracy": 0.81},
    "confusions": [
        {"true": "[i]shirt", "predicted": "T-shirt", "n": 1120, "of": 5000},
        {"true": "coat", "predicted": "[i]shirt", "n": 3, "of": 5},
    ],
}


def printed(outcomes: dict[str, StageOutcome]) -> str:
    result = Result("retrain-1", "shoes", outcomes, METRICS, Release(None, None, "MLflow is away"), 61.0)
    console = Console(width=120, record=True)
    run.show(console, result)
    return console.export_text()


def test_the_end_names_what_was_computed_and_commands_that_work_as_typed(monkeypatch):
    monkeypatch.setattr(run, "reflux_command", lambda: "bin/reflux")
    text = printed({"ingest": StageOutcome.CACHED, "distill": StageOutcome.RAN})
    assert "Computed: distill. The rest was unchanged." in text
    assert "81.00 %" in text
    assert "1 min 01 s in total." in text
    assert "  bin/reflux history" in text
    sentence = "[i]shirt is taken for T-shirt in 1,120 of 5,000, coat is taken for [i]shirt in 3 of 5 test images."
    assert f"Likeliest confusions: {sentence}" in " ".join(text.split())
    assert "artifacts/evaluate/figures/confusions.png" in text
    assert "predict" not in text, "there is no champion to predict with"


def test_a_student_without_mistakes_confuses_nothing(monkeypatch):
    monkeypatch.setitem(METRICS, "confusions", [])
    assert "onfusions" not in printed({"ingest": StageOutcome.CACHED})


def test_a_run_without_changes_says_so():
    assert "nothing was trained" in printed({"ingest": StageOutcome.CACHED})


@pytest.mark.parametrize(("user_error", "code"), [(True, 2), (False, 1)])
def test_a_failed_stage_ends_in_its_code_and_a_bug_with_its_last_lines(capsys, user_error, code):
    failed = StageFailed("distill", "it broke", user_error=user_error, tail=tuple(f"line {n}" for n in range(20)))
    assert run._failed(failed, []) == code
    err = capsys.readouterr().err
    assert "params.yaml" not in err
    assert err.startswith("Error: distill: it broke\n")
    assert ("line 19" in err) is not user_error
    assert "line 4\n" not in err


def test_a_failed_run_says_that_its_assignments_stay(capsys):
    failed = StageFailed("distill", "no network is named resnet8_slm", user_error=True)
    run._failed(failed, ["student.model=resnet8_slm", "seed=1"])
    assert "params.yaml keeps student.model=resnet8_slm, seed=1: the next run" in capsys.readouterr().err
