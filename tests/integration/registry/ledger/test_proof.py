"""Someone who can edit tags and aliases in MLflow, and no file, tries to move a version that no decision allows."""

import json
import uuid
from dataclasses import asdict, replace

import pytest
from mlflow import MlflowClient

from reflux.components.core.errors import UserError
from reflux.components.registry.history import history
from reflux.components.registry.ledger import ledger
from reflux.components.registry.ledger.commit import reconcile
from reflux.components.registry.promote import approve
from reflux.components.registry.rollback import rollback
from tests.integration.registry.faults import ready, tags

pytestmark = pytest.mark.usefixtures("keys")


def edit(model_name: str, version: int, **values: str) -> None:
    for key, value in values.items():
        MlflowClient().set_model_version_tag(model_name, str(version), key.replace("_", ".", 1), value)


def test_approve_goes_by_the_recorded_decision_whatever_the_tags_say(home, model_name, registered, judge, aliases):
    judge(registered(right=180))
    assert judge(registered(right=100)).outcome == "rejected"
    registered(right=190)

    edit(model_name, 2, approval_state="awaited", gate_status="VALIDATED")
    with pytest.raises(UserError, match=r"its recorded decision is rejected, and its tag approval\.state.* was edited"):
        approve(home.experiment, model_name, 2, "looks good")
    edit(model_name, 3, approval_state="awaited", gate_status="VALIDATED")
    with pytest.raises(UserError, match=r"version 3 was never decided on: `reflux promote 3`"):
        approve(home.experiment, model_name, 3, "looks good")
    # The decision on another version, and one of the past that allowed it.
    edit(model_name, 3, **{name: tags(model_name, 1)[f"gate.{name[5:]}"] for name in ("gate_run_id", "gate_sha256")})
    with pytest.raises(UserError, match=r"carries the decision on another version \(.* version 1 of"):
        approve(home.experiment, model_name, 3, "looks good")
    assert aliases() == {"challenger": 3, "champion": 1}


def test_an_earlier_decision_that_allowed_a_version_does_not_count_after_a_later_one(
    home, model_name, registered, judge, aliases
):
    version = registered(right=180)
    assert judge(version, approval="human").outcome == "awaiting approval"
    before = tags(model_name, version)
    assert judge(version, gates={"accuracy": {"min": 0.95}}, approval="human").outcome == "rejected"
    edit(model_name, version, approval_state="awaited")
    edit(model_name, version, **{name: before[f"gate.{name[5:]}"] for name in ("gate_run_id", "gate_sha256")})
    with pytest.raises(UserError, match=r"names another decision than its last one: someone edited it"):
        approve(home.experiment, model_name, version, "looks good")
    assert "champion" not in aliases()


def test_rollback_goes_only_to_what_a_recorded_decision_promoted(home, model_name, registered, judge, aliases):
    for right in (170, 180):
        judge(registered(right))
    assert judge(registered(right=100)).outcome == "rejected"
    registered(right=199)
    for version in (3, 4):
        edit(model_name, version, promoted_at="2026-01-01", promoted_by="ada@lab", promoted_over="None")
        with pytest.raises(UserError, match=f"version {version} never was champion"):
            rollback(home.experiment, model_name, "worse", to=version)
    own = tags(model_name, 3)
    edit(model_name, 3, promoted_run_id=own["gate.run_id"], promoted_sha256=own["gate.sha256"])
    with pytest.raises(UserError, match=r"never was champion: the decision that its tag .* names is rejected"):
        rollback(home.experiment, model_name, "worse", to=3)
    other = tags(model_name, 2)
    edit(model_name, 4, promoted_run_id=other["promoted.run_id"], promoted_sha256=other["promoted.sha256"])
    with pytest.raises(UserError, match="carries the decision on another version"):
        rollback(home.experiment, model_name, "worse", to=4)
    MlflowClient().set_registered_model_alias(model_name, "previous", "3")
    with pytest.raises(UserError, match="version 3 never was champion"):
        rollback(home.experiment, model_name, "worse")
    assert aliases()["champion"] == 2
    assert rollback(home.experiment, model_name, "worse", to=1) == (1, 2)


@pytest.mark.parametrize(
    "forge",
    [
        lambda intent: replace(intent, record=None),
        lambda intent: intent,  # with a record that is nowhere but in its own tags
        lambda intent: replace(intent, action="rollback", outcome="rolled back", record=None),
        lambda intent: replace(intent, action="rollback", outcome="rolled back", record=None, version=1),
    ],
)
def test_reconcile_finishes_no_attempt_that_someone_wrote_into_the_ledger(
    home, model_name, registered, judge, aliases, forge
):
    judge(registered(right=170))
    judge(registered(right=180))
    registered(right=50)
    forged = forge(replace(ready(model_name, 3, 2), id=uuid.uuid4().hex))
    assert json.dumps(asdict(forged))
    ledger.begin(MlflowClient(), home.experiment, forged)

    (entry,) = reconcile(MlflowClient(), home.experiment, model_name)

    assert entry.outcome == "failed"
    assert "Nothing was moved" in entry.why
    assert aliases() == {"challenger": 3, "champion": 2, "previous": 1}
    assert history(home.experiment, model_name).by_hand == []


def test_a_rollback_to_an_earlier_champion_can_be_forged_in_any_name(home, model_name, registered, judge, aliases):
    """Signed or not: who may write the ledger's entries may roll back, and the author of one is what is written."""
    judge(registered(right=170))
    judge(registered(right=180))
    forged = replace(ready(model_name, 1, 2, who="ada@lab"), action="rollback", outcome="rolled back", record=None)
    ledger.begin(MlflowClient(), home.experiment, forged)

    (entry,) = reconcile(MlflowClient(), home.experiment, model_name)

    assert (entry.outcome, entry.by) == ("rolled back", "ada@lab")
    assert aliases() == {"challenger": 2, "champion": 1, "previous": 2}
    assert history(home.experiment, model_name).by_hand == []


def test_a_later_decision_can_be_hidden_by_the_tags_of_its_entry_so_that_a_person_approves_an_earlier_one(
    home, model_name, registered, judge, aliases
):
    version = registered(right=180)
    judge(version, approval="human")
    earlier = tags(model_name, version)
    assert judge(version, gates={"accuracy": {"min": 0.95}}, approval="human").outcome == "rejected"
    MlflowClient().set_tag(tags(model_name, version)["gate.run_id"], "promotion.version", "99")
    edit(model_name, version, **{f"gate_{name}": earlier[f"gate.{name}"] for name in ("run_id", "sha256")})
    assert "champion" not in aliases()
    approve(home.experiment, model_name, version, "looks good")
    assert aliases()["champion"] == version


def test_a_decision_that_was_edited_where_it_is_kept_counts_no_more(home, model_name, registered, judge, aliases):
    """By someone who can write files, and no tag."""
    judge(registered(right=180), approval="human")
    run = MlflowClient().get_run(tags(model_name, 1)["gate.run_id"])
    path = run.info.artifact_uri.removeprefix("file://") + "/decision.json"
    with open(path, encoding="utf-8") as file:
        content = file.read()
    with open(path, "w", encoding="utf-8") as file:
        file.write(content.replace('"accuracy": 0.9', '"accuracy": 0.99'))
    with pytest.raises(UserError, match="is not the one that it was decided by"):
        approve(home.experiment, model_name, 1, "looks good")
    with open(path, "w", encoding="utf-8") as file:
        file.truncate(2**30)
    with pytest.raises(UserError, match=r"has 1,073,741,824 bytes: it is no decision's record"):
        approve(home.experiment, model_name, 1, "looks good")
    assert "champion" not in aliases()
    assert judge(1).promoted
