import math

from reflux.components.observe.boards.figures import cost, summary

MODEL = {"accuracy": 0.8, "worst_class_recall": 0.5, "params": 40000, "latency_ms_p95": 0.75, "size_bytes": 184320}
METRICS = {
    "teacher": MODEL | {"accuracy": 0.85},
    "student": MODEL | {"accuracy": 0.81},
    "control": {"accuracy": 0.78},
    "shipped": {"onnx": MODEL, "onnx_int8": {"accuracy": 0.79, "size_bytes": 51200}},
    "gain": {"accuracy": 0.02, "ci95": [0.01, 0.03], "p_value": 0.001},
    "slices": {"class": {f"class {n}": {"n": 10, "accuracy": 1 - n / 100} for n in range(40)}},
}
DATASET = {"counts": {"train": 50, "val": 10, "test": 10, "unlabeled": 90}, "classes": ["a", "b"]}
CHECKS = {
    "critical_failures": 0,
    "warnings": 1,
    "class_shift": None,
    "expectations": [
        {"name": "known_labels", "unexpected": 0, "success": True},
        {"name": "class_balance_kept", "unexpected": 0, "success": None},
    ],
}


def test_a_retrain_carries_what_the_boards_show_and_leaves_out_what_was_not_measured():
    figures = summary(
        METRICS, {"size_kb": {"max": 200}}, DATASET, ["unreadable", "labels", "repeat", "overlap", "group"], CHECKS
    )
    assert figures["test/student_accuracy"] == 0.8  # the file that ships
    assert figures["test/teacher_accuracy"] == 0.85
    assert math.isclose(figures["gain/gap_to_teacher"], 0.05)
    assert (figures["gain/ci95_low"], figures["gain/ci95_high"]) == (0.01, 0.03)
    assert (figures["student/size_kb"], figures["limit/size_kb_max"], figures["student/int8_size_kb"]) == (180, 200, 50)
    assert (figures["data/quarantined"], figures["data/repeats"], figures["data/unlabeled_images"]) == (2, 2, 90)
    assert figures["data/failed/known_labels"] == 0
    assert not {"data/failed/class_balance_kept", "data/class_shift", "test/control_ece"} & set(figures)
    assert "recall/class 39" in figures
    assert "recall/class 0" not in figures


def test_limits_are_lines_in_a_chart_and_confidences_and_those_of_devices_are_not():
    gates = {"accuracy": {"min": 0.8, "confidence": 0.95}, "latency_ms_p95": {"max": 20, "device": "pi5"}}
    figures = summary(METRICS, gates, DATASET, [], CHECKS)
    assert {name for name in figures if name.startswith("limit/")} == {"limit/accuracy_min"}


def test_a_retrain_has_fewer_than_a_hundred_names():
    many = CHECKS | {"expectations": [{"name": f"e{n}", "unexpected": 0, "success": True} for n in range(14)]}
    whole = dict.fromkeys(("accuracy", "macro_f1", "worst_class_recall", "ece", "corrupted_accuracy"), 0.5)
    whole |= {"params": 1, "latency_ms_p50": 1, "latency_ms_p95": 1, "size_bytes": 1}
    models = dict.fromkeys(("teacher", "student", "control"), whole)
    metrics = METRICS | models | {"shipped": {"onnx": whole, "onnx_int8": whole}}
    gates = {f"gate{n}": {"min": 0, "max": 1} for n in range(8)}
    figures = summary(metrics, gates, DATASET, [], many | {"class_shift": 0.1}) | cost(1, 1, 2)
    assert len(figures) + len({"decision/promoted", "decision/uses_of_test_split"}) < 100
