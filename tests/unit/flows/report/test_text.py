from types import SimpleNamespace

import pytest
from rich.console import Console

from reflux.components.core.params.registry import Registry
from reflux.components.registry.policy.decision import Policy, decide
from reflux.flows.report import text

MODEL = {"accuracy": 0.8, "macro_f1": 0.79, "worst_class_recall": 0.5, "params": 40000, "latency_ms_p95": 0.75}
METRICS = {
    "test": {"fingerprint": "f", "n": 5000},
    "teacher": MODEL | {"accuracy": 0.85, "params": 4000000},
    "student": MODEL | {"accuracy": 0.81, "size_bytes": 160 * 1024},
    "control": {"accuracy": 0.78},
    "shipped": {
        "onnx": MODEL | {"accuracy": 0.8104, "size_bytes": 180 * 1024},
        "onnx_int8": {"accuracy": 0.8, "size_bytes": 51200},
    },
    "gain": {"accuracy": 0.0304, "ci95": [0.02, 0.041], "p_value": 0.000012},
    "artifact_sha256": {"onnx": "abc"},
}
GATES = {"accuracy": {"min": 0.8}, "size_kb": {"max": 100}}


def promotion(gates=GATES, **changes):
    policy = Policy.of(Registry.model_validate({"model_name": "shoes", "gates": gates}))
    decision = decide(METRICS, policy, None, uses=50)
    return SimpleNamespace(
        version=4, decision=decision, **({"champion": 3, "moved": False, "outcome": "rejected"} | changes)
    )


def test_the_students_row_is_the_file_that_ships_and_what_was_not_measured_is_a_dash():
    rows = {row[0]: row[1:] for row in text.rows(METRICS)}
    assert list(rows) == ["teacher", "student", "control", "student, int8"]
    assert rows["student"] == ("81.04 %", "0.7900", "50.00 %", "40,000", "180.0", "0.75")
    assert rows["control"] == ("78.00 %", "-", "-", "-", "-", "-")


def test_the_gain_has_its_interval():
    assert text.gain(METRICS) == (
        "Distillation gained +3.04 points over the control (95% interval +2.00 to +4.10, McNemar p = 1.2e-05, "
        "5,000 test images). Both are of this one training run: how much another seed would gain is not in them."
    )


def test_a_gain_over_a_control_without_labels_is_none():
    assert text.gain(METRICS | {"control_untrained": True}).startswith("No training image has a label, so that the")


def test_what_was_reached_on_the_source_domain_is_told_where_it_has_test_images():
    domain = {"name": "mnist", "train": 850, "n": 1000, "accuracy": {"teacher": 0.9, "student": 0.125}}
    assert text.source_domain({"source_domain": domain}) == (
        "On the 1,000 test images of the source domain mnist the teacher reaches 90.00 % and the student 12.50 %."
    )
    assert text.source_domain({"source_domain": domain | {"n": 0, "accuracy": {}}}) == text.source_domain(METRICS) == ""


def test_the_rounds_of_a_teacher_have_their_gain_and_one_round_is_not_told():
    every = [
        {"val_accuracy": 0.8, "kept": False},
        {"val_accuracy": 0.83, "kept": True},
        {"val_accuracy": 0.82, "kept": False},
    ]
    assert text.rounds({"rounds": every}) == (
        "In its rounds of self-training the teacher got 80.00 %, then 83.00 %, then 82.00 % of the validation images "
        "right: round 2 was kept, which gained +3.00 points over the labels alone."
    )
    assert text.rounds({"rounds": [{"val_accuracy": 0.8, "kept": True}, {"val_accuracy": 0.79, "kept": False}]}) == (
        "In its rounds of self-training the teacher got 80.00 %, then 79.00 % of the validation images right: round 1 "
        "was kept, the labels alone."
    )
    assert text.rounds(METRICS) == ""


def test_the_table_holds_every_row():
    console = Console(width=80, record=True)
    console.print(text.table(METRICS))
    printed = console.export_text()
    assert all(word in printed for row in text.rows(METRICS) for word in row)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"champion": 4, "moved": True}, "shoes version 4 is the new @champion."),
        ({"champion": 4}, "shoes version 4 is the @champion."),
        ({"champion": 3}, "shoes version 4 is REJECTED, as @challenger; version 3 stays the champion."),
        ({"champion": None}, "shoes version 4 is REJECTED, as @challenger; there is no champion."),
    ],
)
def test_the_standing_names_version_alias_and_verdict(changes, sentence):
    assert text.standing(promotion(**changes), "shoes") == sentence


def test_the_terminal_shows_each_reason_with_its_sign_and_the_notes():
    console = Console(width=300, record=True)
    console.print(text.reasons(promotion()))
    lines = console.export_text().splitlines()
    assert lines[0] == "The gates say REJECTED:"
    assert [line.split()[0] for line in lines[1:]] == ["✓", "✗", "✓", "!"]
    assert "This test split has served 50 decisions before" in lines[-1]


def test_the_artifact_holds_table_gain_verdict_and_stages():
    result = SimpleNamespace(
        run_name="retrain-1",
        model_name="shoes",
        metrics=METRICS,
        outcomes={"ingest": SimpleNamespace(value="cached"), "distill": SimpleNamespace(value="ran")},
        release=SimpleNamespace(promotion=promotion(), problem=None),
        seconds=12.4,
    )
    page = text.markdown(result)
    assert page.startswith("# retrain-1\n")
    assert "| student | 81.04 % | 0.7900 | 50.00 % | 40,000 | 180.0 | 0.75 |" in page
    assert text.gain(METRICS) in page
    assert "**REJECTED**" in page
    assert "- missed: Size 180 KB exceeds the maximum of 100 KB." in page
    assert "- note: This test split has served 50 decisions before" in page
    assert "Stages: ingest: cached, distill: ran. 12 s." in page
