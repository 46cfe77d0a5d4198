import errno
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import mlflow
import pytest
from mlflow import MlflowClient

from reflux.components.core.artifacts import read_json, sha256_file, write_json
from reflux.components.core.errors import UserError
from reflux.components.registry import client
from reflux.components.registry import promote as promote_module
from reflux.components.registry.history import history
from reflux.components.registry.ledger.commit import ChampionMoved
from reflux.components.registry.policy.gates import Reason
from reflux.components.registry.promote import approve, challenge
from reflux.components.registry.register import register
from reflux.components.registry.rollback import rollback
from reflux.components.registry.versions import scoring, smoke
from tests.integration.registry.conftest import GATES
from tests.integration.registry.faults import sentence, tags


def test_a_first_model_that_passes_the_gates_becomes_champion(home, model_name, registered, judge, aliases):
    version = registered(right=180)

    outcome = judge(version, who="flow run 7")

    assert (outcome.decision.status, outcome.decision.first) == ("VALIDATED", True)
    assert (outcome.promoted, outcome.moved, outcome.existing) == (True, True, False)
    assert (outcome.champion, outcome.previous) == (1, None)
    assert aliases() == {"challenger": 1, "champion": 1}
    kept = tags(model_name, version)
    assert (kept["gate.status"], kept["promoted.by"]) == ("VALIDATED", "flow run 7")
    assert "Accuracy 0.9 reaches the minimum of 0.8." in kept["gate.reasons"]
    description = MlflowClient().get_model_version(model_name, "1").description
    assert "**VALIDATED.** Promoted at" in description
    assert "- passed: Accuracy 0.9 reaches the minimum of 0.8." in description


def test_the_decision_is_a_file_and_an_artifact_of_the_run_with_every_number(home, registered, judge):
    registered(right=180)
    first = judge(1)
    second = judge(registered(right=186, wrong_from=90))

    record = read_json(home.artifacts / "promote" / "decision.json")
    assert record == second.record
    assert record["decided_by"] == client.whoami()
    assert record["policy"]["gates"] == GATES
    assert record["policy"]["margin"] == 0.03
    assert record["figures"]["accuracy"] == 0.93
    assert record["test"] == {"fingerprint": "f" * 64, "n": 200}
    against = record["champion"]
    assert (against["version"], against["n"]) == (1, 200)
    assert (against["accuracy"], against["challenger_accuracy"]) == (0.9, 0.93)
    assert against["difference"] == pytest.approx(0.03)
    assert against["low"] < 0.03 < against["high"]
    assert 0 < against["p_value"] < 1
    assert against["size_bytes"] == against["challenger_size_bytes"] == record["figures"]["size_bytes"]
    assert 0 < against["challenger_latency_ms_p95"] < 100
    assert 0 < against["latency_ms_p95"] < 100
    assert 0 < against["faster"] < 10
    assert record["uses"] == second.decision.uses >= 1
    assert record["artifact_sha256"] == sha256_file(home.artifacts / "compress" / "student.onnx")
    for outcome in (first, second):
        attempt = tags(outcome.record["model"], outcome.version)["gate.run_id"]
        assert mlflow.artifacts.load_dict(f"runs:/{attempt}/decision.json") == outcome.record


def test_a_better_student_replaces_the_champion_which_becomes_previous(registered, judge, aliases):
    judge(registered(right=170))
    outcome = judge(registered(right=190))
    assert (outcome.promoted, outcome.champion, outcome.previous) == (True, 2, 1)
    assert aliases() == {"challenger": 2, "champion": 2, "previous": 1}


def test_a_student_below_a_gate_is_kept_rejected_and_explained(model_name, registered, judge, aliases):
    judge(registered(right=180))

    outcome = judge(registered(right=181), gates={"accuracy": {"min": 0.95}})

    assert (outcome.decision.status, outcome.promoted, outcome.champion) == ("REJECTED", False, 1)
    assert aliases() == {"challenger": 2, "champion": 1}
    assert tags(model_name, 2)["gate.status"] == "REJECTED"
    description = MlflowClient().get_model_version(model_name, "2").description
    assert "**REJECTED.** The champion stays version 1." in description
    assert "- **missed**: Accuracy 0.905 is below the minimum of 0.95." in description


def test_a_student_that_is_worse_than_the_champion_is_rejected(registered, judge, aliases):
    judge(registered(right=190))
    outcome = judge(registered(right=175, wrong_from=100))
    assert (outcome.decision.status, outcome.champion) == ("REJECTED", 1)
    assert [reason.passed for reason in outcome.decision.reasons[-2:]] == [False, False]
    assert aliases() == {"challenger": 2, "champion": 1}


def test_a_student_that_is_merely_equal_is_rejected_and_says_why(model_name, registered, judge, aliases):
    judge(registered(right=180))
    outcome = judge(registered(right=180, wrong_from=1))
    assert (outcome.decision.status, outcome.champion) == ("REJECTED", 1)
    assert [reason.passed for reason in outcome.decision.reasons[-2:]] == [True, False]
    assert "Not worse, but neither better" in tags(model_name, 2)["gate.reasons"]
    assert aliases() == {"challenger": 2, "champion": 1}


def test_a_student_that_is_equal_and_smaller_replaces_the_champion(registered, judge, aliases):
    judge(registered(right=180, ballast=2000))
    outcome = judge(registered(right=180, wrong_from=1))
    assert sentence(outcome, "advantage").startswith("It is smaller (1.")
    assert aliases() == {"challenger": 2, "champion": 2, "previous": 1}


def test_without_gates_nothing_is_promoted(registered, judge, aliases):
    outcome = judge(registered(right=180), gates={})
    assert (outcome.decision.status, outcome.promoted, outcome.champion) == ("UNKNOWN", False, None)
    assert aliases() == {"challenger": 1}


def test_a_rerun_with_nothing_changed_leaves_everything_as_it_is(home, model_name, registered, judge, aliases):
    judge(registered(right=180))
    judge(registered(right=181), gates={"accuracy": {"min": 0.95}})
    state = (aliases(), tags(model_name, 1), tags(model_name, 2))
    path = home.artifacts / "promote" / "decision.json"
    rejected = path.read_text()
    path.unlink()

    again = judge(2, gates={"accuracy": {"min": 0.95}}, who="someone else")
    assert again.existing
    assert (again.decision.status, again.promoted) == ("REJECTED", False)
    assert path.read_text() == rejected
    champion = judge(1)
    assert (champion.existing, champion.promoted) == (True, True)
    assert (aliases(), tags(model_name, 1), tags(model_name, 2)) == state


def test_other_gates_are_another_decision(model_name, registered, judge, aliases):
    version = registered(right=180)
    assert judge(version, gates={"accuracy": {"min": 0.95}}).decision.status == "REJECTED"
    assert judge(version).promoted

    raised = judge(version, gates={"accuracy": {"min": 0.95}})
    assert (raised.existing, raised.moved, raised.promoted) == (False, False, True)
    assert (raised.decision.status, raised.champion) == ("REJECTED", 1)
    assert "**REJECTED.** It is the champion already." in MlflowClient().get_model_version(model_name, "1").description
    assert judge(version, gates={"accuracy": {"min": 0.95}}).existing
    assert aliases()["champion"] == 1


def test_another_champion_is_another_decision(registered, judge):
    weak = registered(right=165)
    strong = registered(right=180)
    home_again = registered(right=165)
    assert home_again == weak
    judge(weak, gates={"accuracy": {"min": 0.95}})
    registered(right=180)
    judge(strong)
    registered(right=165)
    outcome = judge(weak, gates={"accuracy": {"min": 0.95}})
    assert not outcome.existing
    assert outcome.decision.champion.version == strong


def test_the_same_file_as_the_champion_is_not_promoted_again(home, model_name, registered, judge, aliases):
    judge(registered(right=180))
    metrics = home.artifacts / "evaluate" / "metrics.json"
    write_json(metrics, read_json(metrics) | {"measured": "again"})
    version = register(home.artifacts, model_name, home.experiment, home.lineage()).version

    outcome = judge(version)

    assert version == 2
    assert (outcome.decision.status, outcome.promoted, outcome.champion) == ("VALIDATED", False, 1)
    assert "previous" not in aliases()


def test_a_champion_that_moved_meanwhile_is_compared_with_again(model_name, registered, judge, aliases, monkeypatch):
    judge(registered(right=170))
    rival = registered(right=180)
    version = registered(right=195)
    mlflow_client = MlflowClient()
    moved = []

    real = scoring.compare_with_champion

    def overtaken(*args):
        comparison = real(*args)
        if not moved:
            moved.append(mlflow_client.set_registered_model_alias(model_name, "champion", str(rival)))
        return comparison

    monkeypatch.setattr(scoring, "compare_with_champion", overtaken)
    outcome = judge(version)

    assert outcome.decision.champion.version == rival
    assert aliases() == {"challenger": 3, "champion": 3, "previous": rival}


def test_promotions_at_one_moment_leave_one_champion_and_the_one_it_replaced(
    home, model_name, registered, aliases, make_grounds
):
    any_order = make_grounds(GATES, margin=0.5, smaller=1.0)  # a file of the same size counts as smaller
    numbers = [registered(right=right) for right in (170, 180, 190)]

    def run(number):
        return challenge(home.artifacts, home.experiment, model_name, number, any_order)

    with ThreadPoolExecutor(3) as pool:
        outcomes = list(pool.map(run, numbers))

    assert all(outcome.promoted for outcome in outcomes)
    assert {outcome.decision.first for outcome in outcomes} == {True, False}
    replaced = {outcome.version: outcome.record["compared_with"] for outcome in outcomes}
    champion, previous = aliases()["champion"], aliases()["previous"]
    assert replaced[champion] == previous
    assert sorted(v for v in replaced.values() if v is not None) == sorted(set(numbers) - {champion})


def test_losses_that_add_up_over_promotions_are_told_with_the_best_champion_and_the_gate(model_name, registered, judge):
    """Each is smaller and 11 points worse than the one before it, where 20 may be lost."""
    accurate = judge(registered(right=198, ballast=4000), rule={"margin": 0.2})
    smaller = judge(registered(right=176, ballast=2000), rule={"margin": 0.2})
    smallest = judge(registered(right=154), gates={"accuracy": {"min": 0.5}}, rule={"margin": 0.2})

    assert [each.outcome for each in (accurate, smaller, smallest)] == ["promoted"] * 3
    assert not [note for each in (accurate, smaller) for note in each.decision.notes if "added up" in note]
    (note,) = [note for note in smallest.decision.notes if "added up" in note]
    assert note == (
        "This version is 22.00 points below version 1, the most accurate champion on this test split: losses within "
        "the margin of 20 points have added up to more than it, and the gate on accuracy alone, 0.5, bounds it."
    )
    assert note in tags(model_name, 3)["gate.reasons"]
    assert note in MlflowClient().get_model_version(model_name, "3").description


def test_a_caller_that_expects_another_champion_is_refused_and_the_attempt_is_kept(
    home, model_name, registered, judge, aliases
):
    judge(registered(right=170))
    version = registered(right=190)
    for expected in (7, 0):
        with pytest.raises(ChampionMoved, match=r"The champion of .* is version 1 by now, not"):
            judge(version, expected=expected)
    assert aliases() == {"challenger": 2, "champion": 1}
    assert [entry.outcome for entry in history(home.experiment, model_name).entries] == ["overtaken"] * 2 + ["promoted"]
    assert judge(version, expected=1).promoted


def test_an_approval_is_awaited_given_by_somebody_for_a_reason_and_judged_again(
    home, model_name, registered, judge, aliases
):
    version = registered(right=180)

    def give(number, reason="seen on the new cameras"):
        return approve(home.experiment, model_name, number, reason, who="ada@lab")

    with pytest.raises(UserError, match="was never decided on"):
        give(version)
    waiting = judge(version, approval="human")
    assert (waiting.decision.status, waiting.outcome, waiting.promoted) == ("VALIDATED", "awaiting approval", False)
    assert aliases() == {"challenger": 1}
    assert tags(model_name, version)["approval.state"] == "awaited"
    assert judge(version, approval="human").existing
    with pytest.raises(UserError, match="recorded with its reason"):
        give(version, reason="")

    given = give(version)

    assert (given.outcome, given.moved, aliases()) == ("promoted", True, {"challenger": 1, "champion": 1})
    assert (tags(model_name, version)["approval.by"], tags(model_name, version)["approval.reason"]) == (
        "ada@lab",
        "seen on the new cameras",
    )
    newest = history(home.experiment, model_name).entries[0]
    assert (newest.outcome, newest.by, newest.reason) == ("promoted", "ada@lab", "seen on the new cameras")
    assert judge(version, approval="human").existing
    with pytest.raises(UserError, match="it has been approved"):
        give(version)


def test_an_approval_that_another_champion_overtakes_moves_nothing(home, model_name, registered, judge, aliases):
    waiting = registered(right=180)
    judge(waiting, approval="human")
    judge(registered(right=190))
    with pytest.raises(ChampionMoved, match="is version 2 by now, not none"):
        approve(home.experiment, model_name, waiting, "seen")
    assert aliases() == {"challenger": 2, "champion": 2}
    assert tags(model_name, waiting)["approval.state"] == "awaited"


def test_the_smoke_test_of_a_decision_and_of_an_approval_keeps_to_the_gate_on_latency(
    home, model_name, registered, judge, monkeypatch
):
    """And what is too slow by then is not promoted, although its evaluation was fast enough."""
    limits = []

    def slow(files, probe_sha256, latency_ms_p95_max=None):
        limits.append(latency_ms_p95_max)
        return Reason("smoke", "max", latency_ms_p95_max, None, len(limits) == 2, "One image takes too long.")

    monkeypatch.setattr(promote_module, "smoke", SimpleNamespace(check=slow))
    version, gates = registered(right=180), GATES | {"latency_ms_p95": {"max": 7.0}}
    assert judge(version, gates=gates, approval="human").outcome == "rejected"
    assert judge(version, gates=gates, approval="human", again=True).outcome == "awaiting approval"
    with pytest.raises(UserError, match="is not promoted: One image takes too long"):
        approve(home.experiment, model_name, version, "seen")
    assert limits == [7.0, 7.0, 7.0]


def test_an_unknown_version_is_named(registered, judge):
    registered(right=180)
    with pytest.raises(UserError, match="has no version 9"):
        judge(9)


def test_a_full_disk_is_one_sentence(registered, judge, aliases, monkeypatch):
    version = registered(right=180)
    with monkeypatch.context() as patch:
        full = OSError(errno.ENOSPC, "No space left on device", "decision.json")
        patch.setattr(MlflowClient, "log_artifact", lambda *_: (_ for _ in ()).throw(full))
        with pytest.raises(UserError, match="No space left on the disk"):
            judge(version)
    assert judge(version).champion == version


def test_the_latency_gate_holds_in_the_smoke_tests_of_promotion_and_approval(
    home, model_name, registered, judge, monkeypatch
):
    limits = []

    def check(_files, _probe, latency_ms_p95_max):
        limits.append(latency_ms_p95_max)
        return Reason("smoke", "max", latency_ms_p95_max, 0.1, True, "It keeps to the gate.")

    monkeypatch.setattr(promote_module, "smoke", SimpleNamespace(check=check))
    judge(registered(right=180), gates=GATES | {"latency_ms_p95": {"max": 20}}, approval="human")
    approve(home.experiment, model_name, 1, "seen")
    assert limits == [20, 20]


@pytest.mark.slow
def test_what_fails_the_smoke_test_is_neither_promoted_nor_approved_nor_rolled_back_to(
    home, model_name, registered, judge, aliases, smoke_tested, monkeypatch
):
    probe = home.evaluation(right=170) / "evaluate" / "probe.npz"
    probe.write_bytes(probe.read_bytes()[:-1])

    refused = judge(register(home.artifacts, model_name, home.experiment, home.lineage()).version)

    assert (refused.outcome, refused.decision.status, refused.promoted) == ("rejected", "REJECTED", False)
    assert [reason.gate for reason in refused.decision.reasons if not reason.passed] == ["smoke"]
    assert "evaluation/probe.npz: it was changed" in tags(model_name, 1)["gate.reasons"]
    promoted = judge(registered(right=171))
    assert (promoted.outcome, promoted.decision.reasons[-1].gate) == ("promoted", "smoke")
    assert "gave the recorded answers to all" in tags(model_name, 2)["gate.reasons"]

    assert judge(registered(right=190), approval="human").outcome == "awaiting approval"
    with monkeypatch.context() as machine:
        machine.setattr(smoke, "_PROJECT", ("reflux", "onnxruntime"))  # one that has no such package
        with pytest.raises(UserError, match=r"version 3 is not promoted: The smoke test .* it imports onnxruntime"):
            approve(home.experiment, model_name, 3, "seen")
    approve(home.experiment, model_name, 3, "seen")
    monkeypatch.setattr(smoke, "_PROJECT", ("reflux", "onnxruntime"))
    with pytest.raises(UserError, match=r"stays at version 3: The smoke test .* it imports onnxruntime"):
        rollback(home.experiment, model_name, "worse")
    assert aliases() == {"challenger": 3, "champion": 3, "previous": 2}
