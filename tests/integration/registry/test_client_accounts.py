"""MLflow with accounts: what the workers' may do, what one with a single role may not, and who an entry is by."""

import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests
from mlflow import MlflowClient
from mlflow import artifacts as mlflow_artifacts
from mlflow.exceptions import MlflowException

from infra.local.accounts import ADMIN, PERMISSIONS, ROLE, Accounts
from reflux.components.core.errors import UserError
from reflux.components.core.runtime.tracking import experiment_id
from reflux.components.registry import client
from reflux.components.registry.history import history
from reflux.components.registry.predict import load_model
from reflux.components.registry.promote import challenge
from reflux.components.registry.register import register
from reflux.components.registry.rollback import rollback
from tests.servers import mlflow_server

pytestmark = pytest.mark.slow
PASSWORD = "a-long-password-of-its-own"
MODEL = "clothes-of-accounts"
HOST = socket.gethostname()


@pytest.fixture(scope="module")
def served(tmp_path_factory, mlflow_template) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("accounts")
    (folder / "runs.db").write_bytes(mlflow_template.read_bytes())
    users = f"[mlflow]\ndefault_permission = READ\ndatabase_uri = sqlite:///{folder}/users.db\n"
    users += "auth_cache_ttl_seconds = 600\n"  # checking a password takes as long as some hundred requests
    (folder / "auth.ini").write_text(users)
    secrets = {
        "MLFLOW_AUTH_CONFIG_PATH": f"{folder}/auth.ini",
        "MLFLOW_AUTH_ADMIN_USERNAME": ADMIN,
        "MLFLOW_AUTH_ADMIN_PASSWORD": PASSWORD,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "flask",
    }
    basic = ("--app-name", "basic-auth")
    with mlflow_server(folder, f"sqlite:///{folder}/runs.db", arguments=basic, **secrets) as server:
        accounts = Accounts(server.uri, PASSWORD)
        for name, promotes in {"worker": True, "ann": True, "trainer": False, "reader": False}.items():
            accounts.make(name, PASSWORD, promotes)
        yield server.uri


@pytest.fixture(scope="module")
def act_as(served) -> Iterator[Callable[[str], MlflowClient]]:
    with pytest.MonkeyPatch.context() as patch:

        def act_as(name: str) -> MlflowClient:
            patch.setenv("MLFLOW_TRACKING_URI", served)
            patch.setenv("MLFLOW_TRACKING_USERNAME", name)
            patch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
            patch.setenv("USER", "somebody-else")
            return MlflowClient()

        yield act_as


@pytest.fixture(scope="module")
def champion(home, act_as, make_grounds) -> str:
    """The second of two versions that the worker registered and promoted."""
    mlflow, grounds = act_as("worker"), make_grounds({"accuracy": {"min": 0.8}})
    home.run_id = mlflow.create_run(experiment_id(mlflow, home.experiment)).info.run_id
    for right in (170, 190):
        artifacts = home.evaluation(right)
        version = register(artifacts, MODEL, home.experiment, home.lineage()).version
        assert challenge(artifacts, home.experiment, MODEL, version, grounds).promoted
    experiment = mlflow.get_experiment_by_name(home.experiment).experiment_id
    trains = {"username": "trainer", "resource_type": "experiment", "resource_id": experiment, "permission": "EDIT"}
    grant = f"{client.address()}/api/3.0/mlflow/users/permissions/grant"
    requests.post(grant, json=trains, auth=("worker", PASSWORD), timeout=60).raise_for_status()
    return str(version)


def test_the_workers_account_registers_promotes_and_is_no_administrator(champion, act_as, home):
    mlflow = act_as("worker")
    assert mlflow.get_model_version_by_alias(MODEL, "champion").version == champion
    assert {entry.by for entry in history(home.experiment, MODEL).entries} == {f"worker@{HOST}"}


@pytest.mark.parametrize("name", ["reader", "trainer"])
def test_whoever_may_not_promote_moves_no_alias_and_leaves_nothing(champion, act_as, home, name):
    """With the right to write the ledger, the next command of another account would carry out what it finds there."""
    before = act_as("worker").get_registered_model(MODEL)
    entry = history(home.experiment, MODEL).entries[0]
    mlflow = act_as(name)
    ledger = mlflow.get_run(entry.run_id).info.experiment_id
    for attack in (
        lambda: mlflow.set_registered_model_alias(MODEL, "champion", "1"),
        lambda: mlflow.delete_registered_model_alias(MODEL, "champion"),
        lambda: mlflow.set_model_version_tag(MODEL, "1", "approval.state", "awaited"),
        lambda: mlflow.create_model_version(MODEL, "models:/m-1"),
        lambda: mlflow.delete_registered_model(MODEL),
        lambda: mlflow.create_run(ledger),
        lambda: mlflow.set_tag(entry.run_id, "promotion.by", "somebody else"),
    ):
        with pytest.raises(MlflowException, match="Permission denied"):
            attack()
    with pytest.raises(UserError, match=f"MLflow at .* does not let {name} do this: "):
        rollback(home.experiment, MODEL, "worse")
    after = act_as("worker").get_registered_model(MODEL)
    assert (after.aliases, after.last_updated_timestamp) == (before.aliases, before.last_updated_timestamp)
    assert len(history(home.experiment, MODEL).entries) == 2


def test_an_entry_is_by_the_account_and_says_on_whose_behalf(champion, act_as, home):
    act_as("ann")
    assert client.identity() == f"ann@{HOST}"
    rollback(home.experiment, MODEL, "worse", who="Bob, on the phone")
    assert history(home.experiment, MODEL).entries[0].by == f"Bob, on the phone (ann@{HOST})"


def test_an_account_that_trains_writes_its_own_experiment(champion, act_as, home):
    mlflow = act_as("trainer")
    run = mlflow.create_run(mlflow.get_experiment_by_name(home.experiment).experiment_id)
    mlflow.log_metric(run.info.run_id, "loss", 1.0)
    with pytest.raises(MlflowException, match="Permission denied"):
        mlflow.delete_experiment(run.info.experiment_id)


def test_an_account_that_trains_writes_files_of_versions_which_are_then_refused(champion, act_as, tmp_path):
    """What may be written in MLflow: files with the right to edit the experiment, tags with that to edit the model."""
    mlflow = act_as("trainer")
    model_id = mlflow.get_model_version(MODEL, champion).source.removeprefix("models:/")
    folder = mlflow_artifacts.download_artifacts(f"models:/{MODEL}/{champion}", dst_path=str(tmp_path))
    file = Path(folder, "requirements.txt")
    before = file.read_bytes()
    for content in (b"evil", before):
        file.write_bytes(content)
        mlflow.log_model_artifact(model_id, str(file))
        if content != before:
            with pytest.raises(UserError, match=r"A file of .* was changed, added or removed"):
                load_model(f"models:/{MODEL}/{champion}")
    assert load_model(f"models:/{MODEL}/{champion}").version == int(champion)
    with pytest.raises(MlflowException, match="Permission denied"):
        mlflow.set_model_version_tag(MODEL, champion, "files_sha256", "0" * 64)


def test_only_the_administrator_makes_accounts_and_an_account_that_was_one_is_none_anymore(served):
    accounts = Accounts(served, PASSWORD)
    accounts.make("reflux", PASSWORD, promotes=True)
    accounts._call("PATCH", "2.0", "users/update-admin", username="reflux", is_admin=True)  # as older stacks had it
    create, one = f"{served}/api/2.0/mlflow/users/create", {"username": "mallory", "password": PASSWORD}
    accounts.make("reflux", f"{PASSWORD}-2", promotes=False)
    for name, password, status in (("reflux", f"{PASSWORD}-2", 403), ("worker", PASSWORD, 403), ("reflux", "old", 401)):
        assert requests.post(create, json=one, auth=(name, password), timeout=60).status_code == status
    roles = {each["name"]: each["id"] for each in accounts._call("GET", "3.0", "roles/list")["roles"]}
    given = accounts._call("GET", "3.0", "roles/permissions/list", role_id=roles[ROLE])["role_permissions"]
    assert {each["resource_type"]: each["permission"] for each in given} == PERMISSIONS
    assert len(given) == len(PERMISSIONS)
    assert not accounts._call("GET", "3.0", "users/roles/list", username="reflux")["roles"]
