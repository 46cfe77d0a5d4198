from reflux.components.core.params.registry import Registry
from reflux.components.registry.policy.decision import Policy, decide
from reflux.components.registry.text import markdown

METRICS = {
    "test": {"fingerprint": "f" * 64, "n": 5000},
    "teacher": {"accuracy": 0.85},
    "control": {"accuracy": 0.81},
    "shipped": {
        "onnx": {
            "accuracy": 0.8421,
            "macro_f1": 0.84091,
            "worst_class_recall": 0.468,
            "size_bytes": 100 * 1024,
            "params": 21000,
            "latency_ms_p95": 0.31,
        }
    },
}
NAMES = {"student": "resnet8_slim", "teacher": "tf_efficientnet_lite0"}


def test_a_version_says_what_it_is_how_good_and_where_from():
    text = markdown.version(METRICS, NAMES, "fashion-mnist", {"git.sha": "c" * 40}, None)
    assert text.splitlines()[0] == (
        "**resnet8_slim** distilled from tf_efficientnet_lite0 on fashion-mnist: 84.21 % accuracy on 5,000 test images "
        "(teacher 85.00 %, same student without teacher 81.00 %); macro F1 0.8409, recall of the worst class 46.80 %; "
        "100.0 KB as ONNX, 21,000 parameters, 0.310 ms at p95."
    )
    assert "**Not decided yet.**" in text
    assert f"| Git commit | `{'c' * 40}` |" in text
    assert "| Data (DVC md5) | unknown to this copy of the project |" in text


def test_what_was_not_measured_is_not_mentioned():
    bare = {"test": {"n": 10}, "teacher": {}, "shipped": {"onnx": {}}}
    assert markdown.version(bare, NAMES, "clothes", {}, None).splitlines()[0] == (
        "**resnet8_slim** distilled from tf_efficientnet_lite0 on clothes."
    )


def test_the_verdict_gives_each_reason():
    gates = {"accuracy": {"min": 0.9}, "size_kb": {"max": 200}, "ece": {"max": 0.1}}
    policy = Policy.of(Registry.model_validate({"model_name": "clothes", "gates": gates}))
    decision = decide(METRICS, policy, None, uses=99)
    text = markdown.version(METRICS, NAMES, "clothes", {"test_fingerprint": "f"}, decision, "There is no champion yet.")
    assert "| Test split | `f`, decisions before this one: 99 |" in text
    assert "**UNKNOWN.** There is no champion yet." in text
    assert "- **missed**: Accuracy 0.8421 is below the minimum of 0.9." in text
    assert "- passed: Size 100 KB is within the maximum of 200 KB." in text
    assert "- **unknown**: Calibration error (ECE) was not measured, and the maximum is 0.1." in text
    assert "- note: This test split has served 99 decisions before: " in text


POLICY = {
    "gates": {"accuracy": {"min": 0.8}, "size_kb": {"max": 200.0}},
    "slices": {"class": {"accuracy": {"min": 0.4}}},
    "min_count": 30,
    "margin": 0.01,
    "alpha": 0.05,
    "smaller": 1.1,
    "faster": 1.25,
}


def test_the_models_page_says_what_is_in_production_the_way_back_and_the_policy():
    since = markdown.since("2026-01-02T03:04:05.000+00:00", "ada@host", "for the new cameras")
    tags = {"experiment_id": "1", "evaluate.run_id": "e1", "run_id": "r1", "teacher.model_id": "m-t"}
    tags |= {"dvc.data_md5": "0123456789abcdef.dir", "git.sha": "c" * 40}
    text = markdown.front("the shoes", "clothes", 7, 5, since, tags, POLICY)
    assert text.splitlines() == [
        "**In production: [version 7](#/models/the%20shoes/versions/7)**, the alias `champion`, since "
        "2026-01-02T03:04:05.000+00:00 by ada@host (for the new cameras). [Its model card]"
        "(#/experiments/1/runs/e1/artifacts/model-card.html).",
        "",
        "Where it comes from: data `0123456789ab`, commit `cccccccccccc`, [its run](#/experiments/1/runs/r1), "
        "[its teacher](#/experiments/1/models/m-t), `reflux lineage 7`.",
        "",
        "Before it: [version 5](#/models/the%20shoes/versions/5); `reflux rollback --reason …` puts it back.",
        "",
        "Every attempt, including refused ones, is a run of the experiment `clothes/promotions`.",
        "",
        "A version is promoted when it has:",
        "",
        "- `accuracy` of at least 0.8",
        "- `size_kb` of at most 200",
        "- `accuracy` of at least 0.4 on each `class` of 30 test images or more",
        "- an accuracy of no more than 0.01 below the champion's, both measured at that moment",
        "- a higher accuracy than the champion (p < 0.05), or a file 1.1 times smaller, or 1.25 times faster",
    ]


def test_the_policy_names_confidences_and_the_control():
    bounds = {"accuracy": {"min": 0.8, "confidence": 0.95}}
    policy = POLICY | {"gates": bounds, "slices": {"class": bounds}, "worse_than_control": "refuse"}
    lines = markdown.front("shoes", "clothes", None, None, "", {}, policy).splitlines()
    assert "- `accuracy` of at least 0.8 with 95 % confidence" in lines
    assert "- `accuracy` of at least 0.8 with 95 % confidence on each `class` of 30 test images or more" in lines
    assert "- an accuracy that is not significantly below its control's (p < 0.05)" in lines
    allowed = markdown.front("shoes", "clothes", None, None, "", {}, policy | {"worse_than_control": "allow"})
    assert "control" not in allowed


def test_the_figures_of_a_decision_are_those_that_gates_can_limit():
    record = {"figures": METRICS["shipped"]["onnx"], "gain": {"accuracy": 0.03}, "champion": {"difference": 0.01}}
    figures = markdown.recorded_figures(record)
    assert (figures["accuracy"], figures["gain"], figures["champion/difference"]) == (0.8421, 0.03, 0.01)
    assert "gain" not in markdown.recorded_figures({"figures": {}, "champion": None})  # an older record


def test_before_the_first_promotion_the_page_says_so():
    text = markdown.front("shoes", "clothes", None, None, "", {}, None)
    assert text.startswith("**Nothing is in production yet.**")
    assert "rollback" not in text
