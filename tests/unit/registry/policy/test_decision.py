"""The decision as a pure function, by examples."""

from dataclasses import replace

import pytest

from reflux.components.core.params.registry import Registry
from reflux.components.registry.policy.comparison import Best
from reflux.components.registry.policy.decision import Policy, decide
from reflux.components.registry.policy.gates import Reason
from tests.unit.registry.policy.figures import BASE, RULE, SHA, champion, metrics


def test_a_first_model_passes_by_the_gates_alone_and_the_record_says_so():
    decision = decide(metrics(), BASE, None)
    assert (decision.status, decision.promote, decision.first) == ("VALIDATED", True, True)
    assert decision.sentences == (
        "Accuracy 0.84 reaches the minimum of 0.8. On 5,000 test images a model that is truly at 0.795 passes in 20 % "
        "of draws.",
        "Size 100 KB is within the maximum of 200 KB.",
        "No champion to compare with: this is the first model, judged by the gates alone.",
    )


def test_a_missed_gate_rejects():
    decision = decide(metrics(accuracy=0.79996), BASE, None)
    assert (decision.status, decision.promote) == ("REJECTED", False)
    assert decision.sentences[0] == "Accuracy 0.79996 is below the minimum of 0.8."


def test_without_a_gate_nothing_is_promoted():
    decision = decide(metrics(), RULE, champion())
    assert (decision.status, decision.promote) == ("UNKNOWN", False)
    assert "No gate is configured" in decision.reasons[0].sentence


def test_a_gate_on_a_figure_that_was_not_measured_is_unknown_even_next_to_a_missed_one():
    policy = replace(BASE, gates={"accuracy": {"min": 0.9}, "jpeg_accuracy": {"min": 0.5}})
    assert decide(metrics(), policy, champion()).status == "UNKNOWN"


def test_a_slice_is_a_gate_like_any_other():
    policy = replace(BASE, slices={"class": {"accuracy": {"min": 0.5}}})
    assert decide(metrics(), policy, None).status == "UNKNOWN"
    for accuracy, status in ((0.6, "VALIDATED"), (0.4, "REJECTED")):
        of_classes = {"class": {"shirt": {"n": 500, "accuracy": accuracy}}}
        assert decide(metrics(slices=of_classes), policy, None).status == status
    only_slices = replace(policy, gates={})
    assert decide(metrics(slices={"class": {"shirt": {"n": 500, "accuracy": 0.6}}}), only_slices, None).promote


def test_a_better_student_replaces_the_champion():
    decision = decide(metrics(), BASE, champion())
    assert (decision.status, decision.promote, decision.first) == ("VALIDATED", True, False)


def test_an_equal_student_is_rejected_with_a_plain_sentence():
    decision = decide(metrics(), BASE, champion(low=-0.002, difference=0.001, p_value=0.8))
    assert (decision.status, decision.promote) == ("REJECTED", False)
    assert decision.reasons[-1].sentence.startswith("Not worse, but neither better")
    assert decision.reasons[-1].sentence.endswith("there is no reason to replace it.")


@pytest.mark.parametrize("route", [{"challenger_size_bytes": 50 * 1024}, {"faster": 1.5}])
def test_an_equal_student_that_is_smaller_or_faster_replaces_it(route):
    assert decide(metrics(), BASE, champion(low=-0.002, difference=0.001, p_value=0.8, **route)).promote


def test_a_worse_student_is_rejected_however_small_it_is():
    decision = decide(metrics(), BASE, champion(low=-0.02, difference=-0.012, p_value=0.8, faster=9.0))
    assert (decision.status, decision.promote) == ("REJECTED", False)
    assert "it may be worse by the margin of 1 points" in decision.reasons[-2].sentence


def test_the_champion_itself_is_left_in_place():
    decision = decide(metrics(), BASE, champion(artifact_sha256=SHA, low=0.0, difference=0.0, p_value=1.0))
    assert (decision.status, decision.promote) == ("VALIDATED", False)
    assert "nothing to do" in decision.reasons[-1].sentence


def test_a_version_that_was_rolled_back_is_not_promoted_again_by_itself():
    decision = decide(metrics(), BASE, champion(), rolled_back="at noon by ada@lab")
    assert (decision.status, decision.promote) == ("REJECTED", False)
    assert "rolled back at noon by ada@lab" in decision.reasons[-1].sentence


def test_a_test_split_that_served_too_often_is_warned_of():
    """Models that differ on 8 % of 5,000 images: the best of 2,902 owes a point to luck."""
    like = champion(disagreement=0.08)
    fresh, worn = (decide(metrics(accuracy=0.85, n=5000), BASE, like, uses=uses) for uses in (2900, 2901))
    assert (fresh.uses, fresh.notes) == (2900, ())
    assert worn.promote
    assert worn.notes == (
        "This test split has served 2,901 decisions before: by chance alone the best of 2,902 equal models looks 1.00 "
        "points better than it is (expected value), more than the margin of 1 points. Give ingest a fresh test split.",
    )
    assert worn.sentences[-1] == worn.notes[0]
    assert decide(metrics(), BASE, champion()).notes == ()


def test_models_of_which_nothing_is_known_are_taken_to_be_independent():
    """Without a champion: a spread of 0.5 points, of which the best of 26 is two above."""
    notes = [decide(metrics(accuracy=0.85, n=5000), BASE, None, uses=uses).notes for uses in (24, 25)]
    assert [len(each) for each in notes] == [0, 1]


def test_a_test_split_on_which_no_equal_student_can_win_is_told_with_what_to_do():
    few, enough = (decide(metrics(n=n), BASE, None) for n in (475, 476))
    assert few.promote
    assert few.notes == (
        "On 475 test images a student with as many right answers as the champion can't replace it, however small or "
        "fast it is: excluding a loss of 1 points takes 476 images. Add test images, or set registry.champion.margin "
        "above 0.0101.",
    )
    assert enough.notes == ()
    assert decide(metrics(n=300), replace(BASE, margin=0.02), None).notes == ()
    assert "On 300 test images" in decide(metrics(), BASE, champion(n=300)).notes[0]  # those that were compared


def worse(difference: float, p_value: float) -> dict:
    """The figures of a student that differs from its own control."""
    return metrics() | {"gain": {"accuracy": difference, "p_value": p_value}, "remedy": "more views"}


def test_a_student_that_is_worse_than_its_own_control_is_not_promoted():
    refused = decide(worse(-0.012, 0.003), BASE, None)
    assert (refused.status, refused.promote) == ("REJECTED", False)
    (reason,) = (reason for reason in refused.reasons if reason.gate == "control")
    assert (reason.value, reason.passed) == (-0.012, False)
    assert reason.sentence.startswith(
        "Distillation did not pay here: the student is 1.20 points worse than its own control, the same network "
        "without a teacher (McNemar p = 0.003, below 0.05). What usually helps: more views. "
    )


@pytest.mark.parametrize(("difference", "p_value"), [(-0.012, 0.05), (0.012, 0.003), (-0.001, 0.8), (0.0, 1.0)])
def test_a_student_that_may_be_as_good_as_its_control_is_judged_by_the_rest(difference, p_value):
    decision = decide(worse(difference, p_value), BASE, None)
    assert decision.promote
    assert not any(reason.gate == "control" for reason in decision.reasons)
    assert decision.notes[0] == (
        "Distillation brought no measurable gain here: the 95% interval of its gain is not above 0. What usually "
        "helps: more views."
    )


def test_a_gain_that_is_one_needs_no_advice():
    assert decide(metrics(), BASE, None).notes == ()


def test_an_evaluation_of_an_older_release_has_no_advice():
    figures = {name: value for name, value in worse(-0.012, 0.003).items() if name != "remedy"}
    (reason,) = (reason for reason in decide(figures, BASE, None).reasons if reason.gate == "control")
    assert "below 0.05). registry.worse_than_control=allow" in reason.sentence


def test_a_control_that_ships_instead_of_the_student_is_judged_by_the_gates_and_named():
    gain = {"accuracy": -0.02, "ci95": [-0.03, -0.01], "p_value": 0.001, "wins": 10, "losses": 30}
    instead = {"candidate": {"trained": "labels", "why": "of 50 images …"}, "gain": {"accuracy": 0, "p_value": 1}}
    decision = decide({**metrics(), **instead, "distilled": {"accuracy": 0.81, "gain": gain}}, BASE, None)
    assert decision.promote
    assert (
        "The control ships, not the distilled student: of 50 images …. On the 5,000 test images the student has "
        "81.00 %, -2.00 points against the control (95% interval -3.00 to -1.00)."
    ) in decision.notes


def test_a_control_that_had_no_labels_is_named():
    decision = decide(metrics() | {"control_untrained": True}, BASE, None)
    assert [note for note in decision.notes if "the control is the student before its training" in note]
    assert not [note for note in decide(metrics(), BASE, None).notes if "control" in note]


def test_a_worse_student_is_promoted_where_a_param_says_so():
    decision = decide(worse(-0.012, 0.003), replace(BASE, worse_than_control="allow"), None)
    assert decision.promote
    assert decision.notes[0].startswith("Distillation did not pay here")
    assert not any("no measurable gain" in note for note in decision.notes)


@pytest.mark.parametrize(
    ("best", "against", "warned"),
    [
        (None, champion(), False),
        (Best(1, 0.8501), champion(), True),
        (Best(1, 0.8499), champion(), False),
        (Best(3, 0.90), champion(version=3), False),  # what is lost to the champion itself is a reason, not a note
        (Best(3, 0.90), None, True),  # the champion was taken away by hand
    ],
)
def test_losses_that_have_added_up_to_more_than_the_margin_are_warned_of_and_refuse_nothing(best, against, warned):
    decision = decide(metrics(accuracy=0.84), BASE, against, best=best)
    assert decision.promote
    assert [("points below version 1" in note or "points below version 3" in note) for note in decision.notes] == (
        [True] * warned
    )


def test_the_warning_says_when_no_gate_bounds_the_losses():
    policy = replace(BASE, gates={"size_kb": {"max": 200.0}})
    (note,) = decide(metrics(accuracy=0.84), policy, champion(), best=Best(1, 0.9)).notes
    assert note.startswith("This version is 6.00 points below version 1, the most accurate champion on this test split")
    assert note.endswith("and no gate on accuracy bounds it.")


def test_the_policy_is_what_the_params_state():
    rules = Registry.model_validate(
        {
            "model_name": "shoes",
            "gates": {"accuracy": {"min": 0.8, "confidence": 0.9}},
            "slices": {"min_count": 50, "gates": {"camera": {"accuracy": {"min": 0.5}}}},
            "champion": {"margin": 0.02, "alpha": 0.01, "smaller": 1.5, "faster": 2},
            "worse_than_control": "allow",
        }
    )
    assert Policy.of(rules) == Policy(
        gates={"accuracy": {"min": 0.8, "confidence": 0.9}},
        slices={"camera": {"accuracy": {"min": 0.5}}},
        min_count=50,
        margin=0.02,
        alpha=0.01,
        smaller=1.5,
        faster=2.0,
        worse_than_control="allow",
    )


@pytest.mark.parametrize("passed", [True, False, None])
def test_what_does_not_pass_the_smoke_test_is_not_promoted(passed):
    test = Reason("smoke", "max", None, None, passed, "It was tried.")
    decision = decide(metrics(), BASE, champion())
    tried = decision.with_smoke_test(test)
    assert decision.promote
    assert (tried.promote, tried.status) == ((True, "VALIDATED") if passed else (False, "REJECTED"))
    assert tried.reasons == (*decision.reasons, test)
