from types import SimpleNamespace

import pytest
from mlflow import MlflowClient

from reflux.components.core.errors import UserError
from reflux.components.registry import client
from reflux.components.registry import rollback as rollback_module
from reflux.components.registry.history import history
from reflux.components.registry.ledger.commit import ChampionMoved, commit
from reflux.components.registry.rollback import rollback
from tests.integration.registry.faults import copies, flip_byte, ready, tags


def test_rollback_swaps_champion_and_previous_and_retraining_does_not_undo_it(
    home, model_name, registered, judge, aliases
):
    judge(registered(right=180))
    judge(registered(right=190))

    assert rollback(home.experiment, model_name, "complaints about boots", who="ada@lab") == (1, 2)

    assert aliases() == {"challenger": 2, "champion": 1, "previous": 2}
    newest = history(home.experiment, model_name).entries[0]
    assert (newest.outcome, newest.version, newest.champion, newest.by) == ("rolled back", 1, 2, "ada@lab")
    assert newest.why == "Version 2 was rolled back: complaints about boots"
    front = MlflowClient().get_registered_model(model_name).description
    assert f"**In production: [version 1](#/models/{model_name}/versions/1)**" in front
    assert "by ada@lab (complaints about boots)" in front
    assert f"Before it: [version 2](#/models/{model_name}/versions/2); `reflux rollback" in front
    assert "- `accuracy` of at least 0.8" in front
    held = judge(2)
    assert (held.decision.status, held.champion) == ("REJECTED", 1)
    assert judge(2).existing
    assert judge(2, again=True).promoted
    assert aliases()["champion"] == 2
    assert "rollback.note" not in tags(model_name, 2)


def test_rollback_twice_is_where_it_began(home, model_name, registered, judge, aliases):
    judge(registered(right=180))
    judge(registered(right=190))
    rollback(home.experiment, model_name, "worse")
    rollback(home.experiment, model_name, "worse")
    assert aliases() == {"challenger": 2, "champion": 2, "previous": 1}
    assert "rollback.note" not in tags(model_name, 2)


def test_rollback_says_why_it_can_not(home, model_name, registered, judge):
    with pytest.raises(UserError, match="No model is registered"):
        rollback(home.experiment, model_name, "worse")
    version = registered(right=180)
    with pytest.raises(UserError, match="has no champion"):
        rollback(home.experiment, model_name, "worse")
    judge(version)
    with pytest.raises(UserError, match="first champion"):
        rollback(home.experiment, model_name, "worse")
    judge(registered(right=190))
    flip_byte(model_name, 1, "model.onnx")
    with pytest.raises(UserError, match="version 1 was changed"):
        rollback(home.experiment, model_name, "worse")
    assert client.aliases(MlflowClient(), model_name)["champion"] == 2


def test_a_rollback_to_a_version_goes_where_it_says_and_only_to_a_former_champion(
    home, model_name, registered, judge, aliases
):
    for right in (170, 180, 190):
        judge(registered(right))
    judge(registered(right=100))
    for target, sentence in ((4, "never was champion"), (3, "is the champion already"), (9, "has no version 9")):
        with pytest.raises(UserError, match=sentence):
            rollback(home.experiment, model_name, "worse", to=target)
    assert rollback(home.experiment, model_name, "worse", to=1) == (1, 3)
    assert aliases() == {"challenger": 4, "champion": 1, "previous": 3}
    with pytest.raises(UserError, match="recorded with its reason"):
        rollback(home.experiment, model_name, " ")


def test_a_rollback_that_another_process_overtakes_moves_nothing_and_ends_with_code_4(home, original, monkeypatch):
    """The champion moves between the reading of the aliases and the writing, while the smoke test runs."""
    mlflow, name = MlflowClient(), f"{original.name}-overtaken"
    copies(original, name, 3)
    for version, champion in ((1, None), (2, 1), (3, 2)):
        commit(mlflow, home.experiment, ready(name, version, champion))
    smoke_test = rollback_module.smoke.check

    def meanwhile(*args):
        client.set_alias(mlflow, name, "champion", 1)
        return smoke_test(*args)

    monkeypatch.setattr(rollback_module, "smoke", SimpleNamespace(check=meanwhile))
    with pytest.raises(ChampionMoved, match="is version 1 by now, not version 3, so version 2 was not") as late:
        rollback(home.experiment, name, "worse")
    assert late.value.exit_code == 4
    assert client.aliases(mlflow, name) == {"champion": 1, "previous": 2}
    assert not [version for version in (1, 2, 3) if "rollback.note" in tags(name, version)]
    newest = history(home.experiment, name).entries[0]
    assert (newest.outcome, newest.version) == ("overtaken", 2)
