from reflux.components.core.artifacts import write_json
from reflux.components.registry.versions.evaluated_run import EvaluatedRun, Lineage, lineage_key


def test_an_unknown_origin_leaves_no_tag():
    lineage = Lineage("run", params_sha256="a", data_md5=None, git_sha=None, flow_run_id=None)
    assert lineage.tags() == {"run_id": "run", "params.sha256": "a"}


def test_the_key_belongs_to_one_evaluation_of_one_file(tmp_path):
    one, other = tmp_path / "one.json", tmp_path / "other.json"
    one.write_text("{}")
    other.write_text("{ }")
    assert lineage_key(one, "a") == lineage_key(one, "a")
    assert len({lineage_key(one, "a"), lineage_key(one, "b"), lineage_key(other, "a")}) == 3


def test_the_weights_and_the_soft_labels_are_tags_and_a_live_teacher_has_no_key(tmp_path):
    evaluated = EvaluatedRun(tmp_path, metrics={}, dataset={}, sha256="", lineage_key="")
    assert evaluated.origin() == {}
    write_json(tmp_path / "pretrain" / "model.json", {"model": "resnet8", "weights": "random", "sha256": None})
    write_json(tmp_path / "label" / "manifest.json", {})
    assert evaluated.origin() == {
        "pretrained.model": "resnet8",
        "pretrained.weights": "random",
        "soft_labels.key": "live",
    }
