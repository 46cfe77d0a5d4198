import errno
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from components.core.artifacts import read_json, sha256_file, write_json
from components.core.errors import UserError
from components.core.shards import open_shard
from components.registry import scoring, server
from components.registry.gates import Decision
from components.registry.history import history, rollback
from components.registry.promote import ChampionMoved, challenge, promote
from components.registry.register import register
from components.registry.shipped import fetched

GATES = {"accuracy": {"min": 0.8}, "worst_class_recall": {"min": 0.5}, "size_kb": {"max": 200.0}}


@pytest.fixture
def registered(home, model_name):
    """Make, evaluate and register a student that answers ``right`` test images rightly."""

    def make(right: int, wrong_from: int = 0) -> int:
        artifacts = home.evaluation(right, wrong_from)
        return register(artifacts, model_name, home.experiment, home.lineage()).version

    return make


@pytest.fixture
def judge(home, model_name):
    def run(version: int, gates=GATES, margin: float = 0.02, **others):
        return challenge(home.artifacts, model_name, version, gates, margin, resamples=500, seed=0, **others)

    return run


@pytest.fixture
def aliases(model_name):
    return lambda: server.aliases(MlflowClient(), model_name)


def tags(model_name, version):
    return MlflowClient().get_model_version(model_name, str(version)).tags


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
    assert record["decided_by"] == server.whoami()
    assert record["gates"] == GATES
    assert record["figures"]["accuracy"] == 0.93
    assert record["test"] == {"fingerprint": "f" * 64, "n": 200}
    against = record["champion"]
    assert (against["version"], against["n"]) == (1, 200)
    assert (against["accuracy"], against["challenger_accuracy"]) == (0.9, 0.93)
    assert against["difference"] == pytest.approx(0.03)
    assert against["low"] < 0.03 < against["high"]
    assert 0 < against["p_value"] < 1
    assert record["artifact_sha256"] == sha256_file(home.artifacts / "compress" / "student.onnx")
    for outcome in (first, second):
        name = f"promote/decision-v{outcome.version}.json"
        assert mlflow.artifacts.load_dict(f"runs:/{home.run_id}/{name}") == outcome.record


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
    assert outcome.decision.reasons[-1].passed is False
    assert aliases() == {"challenger": 2, "champion": 1}


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

    again = judge(2, gates={"accuracy": {"min": 0.95}}, run_id=None, who="somebody else")
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
    assert "**REJECTED.** It is the champion since" in MlflowClient().get_model_version(model_name, "1").description
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


def test_the_champion_is_scored_anew_on_a_new_test_split_and_the_change_is_said(home, model_name, registered, judge):
    judge(registered(right=180))
    home.evaluation(right=190, fingerprint="0" * 64)
    version = register(home.artifacts, model_name, home.experiment, home.lineage()).version

    outcome = judge(version)

    assert outcome.decision.champion.test_changed
    assert "scored anew on this one" in outcome.decision.reasons[-1].sentence
    with pytest.raises(UserError, match="version 1 was evaluated on another test split"):
        judge(1)


def kept(model_name, version, name) -> Path:
    """The registry's own copy of a version's file."""
    uri = MlflowClient().get_model_version_download_uri(model_name, str(version))
    return Path(uri.removeprefix("file://")) / name


def tamper(model_name, version):
    path = kept(model_name, version, "model.onnx")
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)


def test_a_challenger_whose_file_was_changed_is_refused(model_name, registered, judge, aliases):
    version = registered(right=180)
    tamper(model_name, version)
    with pytest.raises(UserError, match="version 1 was changed"):
        judge(version)
    assert aliases() == {"challenger": 1}


def test_a_champion_whose_file_was_changed_blocks_the_comparison(model_name, registered, judge, aliases):
    judge(registered(right=180))
    version = registered(right=190)
    tamper(model_name, 1)
    with pytest.raises(UserError, match=r"version 1 was changed .* `reflux rollback`"):
        judge(version)
    assert aliases()["champion"] == 1


def test_metrics_that_were_edited_are_refused(home, model_name, registered, judge):
    version = registered(right=180)
    path = kept(model_name, version, "evaluation/metrics.json")
    path.write_text(path.read_text().replace("0.9", "0.99", 1))
    with pytest.raises(UserError, match="evaluation kept with"):
        judge(version)


def test_metrics_that_the_file_does_not_reproduce_are_refused(home, model_name, judge):
    artifacts = home.evaluation(right=166)
    path = artifacts / "evaluate" / "metrics.json"
    metrics = read_json(path)
    metrics["shipped"]["onnx"]["accuracy"] = 0.97
    write_json(path, metrics)
    version = register(artifacts, model_name, home.experiment, home.lineage()).version
    with pytest.raises(UserError, match=r"scores 0\.8300 .* says 0\.9700"):
        judge(version)


def test_an_empty_test_split_is_refused(home, registered, judge):
    version = registered(right=180)
    for name in ("images", "labels", "ids"):
        path = home.artifacts / "ingest" / "shards" / "test" / f"{name}.npy"
        np.save(path, np.load(path)[:0])
    with pytest.raises(UserError, match="holds no images"):
        judge(version)


@pytest.mark.parametrize("breaks_at", [1, 2, 3])
def test_a_promotion_that_breaks_off_is_undone(model_name, registered, judge, aliases, monkeypatch, breaks_at):
    judge(registered(right=170))
    judge(registered(right=176))
    version = registered(right=190)
    before = aliases()
    calls = []

    real = MlflowClient.set_registered_model_alias

    def breaking(self, name, alias, number):
        calls.append(alias)
        if len(calls) == breaks_at:
            raise KeyboardInterrupt
        real(self, name, alias, number)

    monkeypatch.setattr(MlflowClient, "set_registered_model_alias", breaking)
    if breaks_at <= 2:
        with pytest.raises(KeyboardInterrupt):
            judge(version)
        assert aliases() == before
        assert judge(version).promoted
    else:
        assert judge(version).promoted
    assert aliases() == {"challenger": 3, "champion": 3, "previous": 2}


def test_a_server_that_fails_after_the_alias_was_set_leaves_the_old_champion(registered, judge, aliases, monkeypatch):
    judge(registered(right=170))
    version = registered(right=190)
    before = aliases()
    real = MlflowClient.get_registered_model
    reads = []

    def failing(self, name):
        reads.append(name)
        if len(reads) == 3:  # before deciding, before moving, after moving
            raise MlflowException("API request to http://x failed with exception timeout")
        return real(self, name)

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "get_registered_model", failing)
        with pytest.raises(server.Unreachable):
            judge(version)
    assert aliases() == before


def test_a_killed_promotion_that_had_moved_the_alias_is_finished_by_the_next(
    model_name, registered, judge, aliases, monkeypatch
):
    version = registered(right=180)
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_artifact", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            judge(version)
    assert "gate.key" not in tags(model_name, version)

    outcome = judge(version)

    assert (outcome.promoted, outcome.existing, outcome.champion) == (True, False, 1)
    assert "It is the champion since" in MlflowClient().get_model_version(model_name, "1").description
    assert judge(version).existing


def test_a_champion_that_moved_meanwhile_is_compared_with_again(model_name, registered, judge, aliases, monkeypatch):
    judge(registered(right=170))
    rival = registered(right=180)
    version = registered(right=195)
    client = MlflowClient()
    moved = []

    real = scoring.against_champion

    def overtaken(*args):
        found = real(*args)
        if not moved:
            moved.append(client.set_registered_model_alias(model_name, "champion", str(rival)))
        return found

    monkeypatch.setattr(scoring, "against_champion", overtaken)
    outcome = judge(version)

    assert outcome.decision.champion.version == rival
    assert aliases() == {"challenger": 3, "champion": 3, "previous": rival}


def test_a_promotion_that_names_another_champion_is_refused(model_name, registered, judge, aliases):
    judge(registered(right=180))
    version = registered(right=190)
    verdict = Decision("VALIDATED", True, False, (), None)
    with pytest.raises(ChampionMoved, match="is version 1 by now, not 7"):
        promote(model_name, version, verdict, expected_champion=7)
    with pytest.raises(UserError, match="is REJECTED"):
        promote(model_name, version, Decision("REJECTED", False, False, (), None), expected_champion=1)
    assert aliases() == {"challenger": 2, "champion": 1}


def test_promotions_at_one_moment_leave_one_champion_and_the_one_it_replaced(home, model_name, registered, aliases):
    numbers = [registered(right=right) for right in (170, 180, 190)]

    def run(number):
        return challenge(home.artifacts, model_name, number, GATES, 0.5, resamples=200, seed=0)

    with ThreadPoolExecutor(3) as pool:
        outcomes = list(pool.map(run, numbers))

    assert all(outcome.promoted for outcome in outcomes)
    assert {outcome.decision.first for outcome in outcomes} == {True, False}
    replaced = {outcome.version: outcome.record["compared_with"] for outcome in outcomes}
    champion, previous = aliases()["champion"], aliases()["previous"]
    assert replaced[champion] == previous
    assert sorted(v for v in replaced.values() if v is not None) == sorted(set(numbers) - {champion})


def test_rollback_swaps_champion_and_previous_and_retraining_does_not_undo_it(model_name, registered, judge, aliases):
    judge(registered(right=180))
    judge(registered(right=190))

    assert rollback(model_name, reason="complaints about boots", who="ada@lab") == (1, 2)

    assert aliases() == {"challenger": 2, "champion": 1, "previous": 2}
    newest = history(model_name)[0]
    assert "Rolled back at" in newest.reason
    assert "by ada@lab (complaints about boots)" in newest.reason
    held = judge(2)
    assert (held.decision.status, held.champion) == ("REJECTED", 1)
    assert judge(2).existing
    assert judge(2, again=True).promoted
    assert aliases()["champion"] == 2
    assert "rollback.note" not in tags(model_name, 2)


def test_rollback_twice_is_where_it_began(model_name, registered, judge, aliases):
    judge(registered(right=180))
    judge(registered(right=190))
    rollback(model_name)
    rollback(model_name)
    assert aliases() == {"challenger": 2, "champion": 2, "previous": 1}
    assert "rollback.note" not in tags(model_name, 2)


def test_rollback_says_why_it_can_not(model_name, registered, judge):
    with pytest.raises(UserError, match="No model is registered"):
        rollback(model_name)
    version = registered(right=180)
    with pytest.raises(UserError, match="has no champion"):
        rollback(model_name)
    judge(version)
    with pytest.raises(UserError, match="first champion"):
        rollback(model_name)
    judge(registered(right=190))
    tamper(model_name, 1)
    with pytest.raises(UserError, match="version 1 was changed"):
        rollback(model_name)
    assert server.aliases(MlflowClient(), model_name)["champion"] == 2


def test_history_lists_every_version_with_its_reason(model_name, registered, judge):
    judge(registered(right=180))
    judge(registered(right=181), gates={"accuracy": {"min": 0.95}})
    registered(right=182)

    rows = history(model_name)

    assert [(row.version, row.status, row.aliases) for row in rows] == [
        (3, "UNKNOWN", ("challenger",)),
        (2, "REJECTED", ()),
        (1, "VALIDATED", ("champion",)),
    ]
    assert [row.accuracy for row in rows] == [0.91, 0.905, 0.9]
    assert rows[0].reason == "Not decided yet."
    assert "below the minimum of 0.95" in rows[1].reason
    assert rows[2].reason.startswith("Promoted at ")
    assert 0 < rows[0].size_kb < 10
    with pytest.raises(UserError, match="No model is registered as nothing"):
        history("nothing")


def test_an_unknown_version_is_named(registered, judge):
    registered(right=180)
    with pytest.raises(UserError, match="has no version 9"):
        judge(9)


def test_a_model_from_elsewhere_is_refused(home, model_name, judge):
    client = MlflowClient()
    client.create_registered_model(model_name)
    client.create_model_version(model_name, f"file://{home.folder}/mlartifacts/clothes/foreign", home.run_id)
    with pytest.raises(UserError, match="not registered by Reflux"):
        judge(1)


def test_a_champion_of_other_classes_is_scored_by_the_names_of_its_classes(home, registered, model_name):
    registered(right=200)
    found = MlflowClient().get_model_version(model_name, "1")
    test = open_shard(home.artifacts / "ingest" / "shards" / "test")
    with fetched(found) as version:
        known = replace(version, metadata=version.metadata | {"classes": ["shirt", "hat", "boot"]})
        predicted = scoring._predicted(known, test, ["boot", "dress", "shirt"])
    assert predicted[:3].tolist() == [2, -1, 0]


def test_a_full_disk_is_one_sentence(registered, judge, aliases, monkeypatch):
    version = registered(right=180)
    with monkeypatch.context() as patch:
        full = OSError(errno.ENOSPC, "No space left on device", "decision.json")
        patch.setattr(MlflowClient, "log_artifact", lambda *_: (_ for _ in ()).throw(full))
        with pytest.raises(UserError, match="No space left on the disk"):
            judge(version)
    assert judge(version).champion == version
