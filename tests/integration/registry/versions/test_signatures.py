"""Versions are signed when they are registered, and only those of our key, with their own files, are promoted."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import mlflow
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from mlflow import MlflowClient
from PIL import Image

from reflux.components.core.artifacts import sha256_file
from reflux.components.core.errors import UserError
from reflux.components.registry.ledger import ledger, proof
from reflux.components.registry.ledger.commit import reconcile
from reflux.components.registry.ledger.ledger import DECISION
from reflux.components.registry.lineage import Node, trace
from reflux.components.registry.predict import load_model, predict
from reflux.components.registry.promote import approve
from reflux.components.registry.rollback import rollback
from reflux.components.registry.versions import signatures
from reflux.components.registry.versions.signatures import SIGNATURE, SIGNING_KEY, VERIFY_KEY
from tests.integration.registry.faults import bring_code, flip_byte, ready, registered_file, retag, tags
from tests.workspaces import example

pytest.importorskip("model_signing")


def pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def public_pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


@pytest.fixture(scope="module")
def key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@pytest.fixture
def signing(key, tmp_path, monkeypatch) -> Path:
    """Both keys, the private one as a file and the public one as PEM; returns the public one as a file."""
    private, public = tmp_path / "signing.pem", tmp_path / "verify.pem"
    private.write_text(pem(key))
    public.write_text(public_pem(key))
    monkeypatch.setenv(SIGNING_KEY, str(private))
    monkeypatch.setenv(VERIFY_KEY, public_pem(key))
    return public


def signature(model_name: str, version: int) -> Node:
    nodes = trace(model_name, version).children[0].children
    return next(node for node in nodes if node.name == "signature")


def test_a_signed_version_is_promoted_and_model_signings_own_command_verifies_it(
    signing, model_name, registered, judge, tmp_path
):
    assert judge(registered(right=180)).promoted
    assert (signature(model_name, 1).value, signature(model_name, 1).problem) == ("signed", None)

    folder = mlflow.artifacts.download_artifacts(f"models:/{model_name}/1", dst_path=str(tmp_path / "files"))
    command = [sys.executable, "-m", "model_signing", "verify", "key", folder]
    options = ["--signature", f"{folder}/{SIGNATURE}", "--public_key", str(signing)]
    verified = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    assert (verified.returncode, verified.stdout.strip()) == (0, "Verification succeeded"), verified.stderr


def test_the_pages_line_verifies_a_signature_and_refuses_changed_files_whose_tags_were_changed_with_them(
    signing, model_name, registered, judge, tmp_path, monkeypatch
):
    assert judge(registered(right=180)).promoted
    monkeypatch.chdir(signing.parent)
    lines = example("how-to/champion.md", "model_signing")
    theirs = example("how-to/champion.md", "pyfunc.load_model").replace("fashion-mnist-student", model_name)
    checked = theirs.partition("model = ")[0]
    exec(checked + lines, {})  # noqa: S102 - our own page
    flip_byte(model_name, 1, "requirements.txt")
    retag(model_name, 1)
    exec(checked, {})  # noqa: S102 - without a signature it passes, as the page says
    with pytest.raises(subprocess.CalledProcessError):
        exec(checked + lines, {})  # noqa: S102


def test_a_version_with_a_changed_file_is_neither_promoted_nor_approved_nor_rolled_back_to(
    signing, home, model_name, registered, judge, aliases
):
    for right in (165, 180):
        judge(registered(right))
    registered(right=199)
    judge(3, approval="human")
    for version in (1, 3):
        flip_byte(model_name, version, "requirements.txt")
        retag(model_name, version)
    sentence = r"version {} is refused: its files are not those that were signed \(changed: requirements\.txt\)\.$"
    with pytest.raises(UserError, match=sentence.format(3)):
        judge(3, again=True)
    with pytest.raises(UserError, match="version 3 was on other files"):
        approve(home.experiment, model_name, 3, "looks good")
    with pytest.raises(UserError, match="version 1 was on other files"):
        rollback(home.experiment, model_name, "worse")
    assert aliases() == {"challenger": 3, "champion": 2, "previous": 1}
    assert signature(model_name, 3).problem == "its files are not those that were signed (changed: requirements.txt)"


def test_added_and_removed_files_a_changed_signature_and_another_key_are_named(
    signing, model_name, registered, monkeypatch
):
    folder = registered_file(model_name, registered(right=180), ".").resolve()
    (folder / "evil.py").write_text("print()")
    (folder / "python_env.yaml").rename(folder / ".." / "kept.yaml")
    with pytest.raises(UserError, match=r"\(removed: python_env\.yaml; added: evil\.py\)\.$"):
        signatures.check("it", folder)
    (folder / "evil.py").unlink()
    (folder / ".." / "kept.yaml").rename(folder / "python_env.yaml")
    signatures.check("it", folder)

    monkeypatch.delenv(SIGNING_KEY)
    monkeypatch.setenv(VERIFY_KEY, public_pem(ec.generate_private_key(ec.SECP384R1())))
    assert signatures.find_problem(folder) == "it was signed with another key than REFLUX_VERIFY_KEY"
    monkeypatch.setenv(VERIFY_KEY, str(signing))
    genuine = (folder / SIGNATURE).read_text()
    (folder / SIGNATURE).write_text(genuine.replace('"payload":"ewog', '"payload":"ewoJ'))
    assert signatures.find_problem(folder) == "model.sig was changed after its key had signed it"
    (folder / SIGNATURE).write_text("{}")
    assert signatures.find_problem(folder) == "model.sig can't be read as a signature"


def test_without_a_key_versions_are_unsigned_and_say_so_and_with_one_they_are_refused(
    key, model_name, registered, judge, monkeypatch
):
    version = registered(right=180)
    assert not registered_file(model_name, version, SIGNATURE).exists()
    assert (signature(model_name, version).value, signature(model_name, version).problem) == ("unsigned", None)
    monkeypatch.setenv(SIGNING_KEY, pem(key))
    with pytest.raises(UserError, match="version 1 is refused: it is unsigned, and REFLUX_SIGNING_KEY is set; registe"):
        judge(version)
    monkeypatch.delenv(SIGNING_KEY)
    assert judge(version).promoted


def test_where_only_the_private_key_is_set_its_public_half_checks_and_without_keys_nothing_does(
    signing, model_name, registered, monkeypatch
):
    monkeypatch.delenv(VERIFY_KEY)
    version = registered(right=180)
    flip_byte(model_name, version, "requirements.txt")
    retag(model_name, version)
    assert signature(model_name, version).problem is not None
    monkeypatch.delenv(SIGNING_KEY)
    unchecked = signature(model_name, version)
    assert (unchecked.value, unchecked.problem) == ("signed, not checked, as REFLUX_VERIFY_KEY is not set", None)


def rewrite(model_name: str, version: int, **changes: object) -> None:
    """Let a version's decision, and the tags that go with it, say something else: as someone can who writes all."""
    own = tags(model_name, version)
    path = Path(MlflowClient().get_run(own["gate.run_id"]).info.artifact_uri.removeprefix("file://"), DECISION)
    path.write_bytes(proof.content(json.loads(path.read_bytes()) | changes))
    for name in ("gate.sha256", "promoted.sha256", "promoted.run_id"):
        value = own["gate.run_id"] if name.endswith("run_id") else sha256_file(path)
        MlflowClient().set_model_version_tag(model_name, str(version), name, value)


def test_a_decision_that_was_rewritten_with_its_tags_moves_nothing_where_a_key_is_set_and_does_where_none_is(
    signing, home, model_name, registered, judge, aliases, monkeypatch
):
    judge(registered(right=180))
    assert judge(registered(right=100)).outcome == "rejected"
    rewrite(model_name, 2, outcome="awaiting approval", status="VALIDATED", promote=True)
    monkeypatch.setenv(SIGNING_KEY, "")
    with pytest.raises(UserError, match="a decision must be signed: set REFLUX_SIGNING_KEY, too"):
        approve(home.experiment, model_name, 2, "looks good")
    monkeypatch.setenv(SIGNING_KEY, str(signing.with_name("signing.pem")))
    sentence = r"decision\.json can't be trusted: it was not signed with REFLUX_VERIFY_KEY, or was changed since"
    with pytest.raises(UserError, match=sentence):
        approve(home.experiment, model_name, 2, "looks good")
    rewrite(model_name, 2, outcome="promoted")
    with pytest.raises(UserError, match=sentence):
        rollback(home.experiment, model_name, "worse", to=2)
    assert aliases()["champion"] == 1
    monkeypatch.delenv(SIGNING_KEY)
    monkeypatch.delenv(VERIFY_KEY)
    assert rollback(home.experiment, model_name, "worse", to=2) == (2, 1)


def test_a_signed_version_of_another_model_is_no_champion_here(
    signing, home, model_name, registered, judge, aliases, original
):
    """What staging signed with the same key is replayed: files, tags, and its decision with or without its names."""
    judge(registered(right=180))
    judge(registered(right=190))
    name, client = f"{model_name}-production", MlflowClient()
    client.create_registered_model(name)
    for version in (1, 2):
        theirs = client.get_model_version(model_name, str(version))
        client.create_model_version(name, theirs.source, theirs.run_id, tags=theirs.tags)
        client.set_registered_model_alias(name, "champion", str(version))
    with pytest.raises(UserError, match=f"version 1 carries the decision on another version \\({model_name} version 1"):
        rollback(home.experiment, name, "worse", to=1)
    with pytest.raises(UserError, match="version 2 carries the decision on another version"):
        list(predict([], f"models:/{name}@champion"))
    rewrite(name, 1, model=name)
    with pytest.raises(UserError, match="it was not signed with REFLUX_VERIFY_KEY, or was changed since"):
        rollback(home.experiment, name, "worse", to=1)


@pytest.mark.slow
def test_who_writes_files_and_tags_promotes_what_brings_code_where_no_key_is_set_and_not_where_one_is(
    signing, home, model_name, registered, judge, aliases, monkeypatch, smoke_tested
):
    judge(registered(right=170))
    registered(right=190)
    ran = home.folder / f"{model_name}-ran"
    bring_code(model_name, 2, ran)
    retag(model_name, 2)
    with pytest.raises(UserError, match=r"not those that were signed \(changed: MLmodel; added: code/evil\.py\)"):
        judge(2)
    assert not ran.exists()
    monkeypatch.delenv(SIGNING_KEY)
    monkeypatch.delenv(VERIFY_KEY)
    assert judge(2).promoted
    assert ran.exists()


@pytest.mark.parametrize("holds_key", [True, False])
def test_who_writes_files_and_tags_and_holds_the_key_forges_a_promotion_and_with_none_set_anyone_does(
    signing, home, model_name, registered, judge, aliases, monkeypatch, holds_key
):
    if not holds_key:
        monkeypatch.delenv(SIGNING_KEY)
        monkeypatch.delenv(VERIFY_KEY)
    judge(registered(right=170))
    registered(right=50)
    flip_byte(model_name, 2, "requirements.txt")
    retag(model_name, 2)
    (registered_file(model_name, 2, SIGNATURE)).unlink(missing_ok=True)
    signatures.sign(registered_file(model_name, 2, ".").resolve())
    retag(model_name, 2)
    client, forged = MlflowClient(), ready(model_name, 2, 1)
    proof.log(client, ledger.begin(client, home.experiment, forged), forged.record or {})
    (entry,) = reconcile(client, home.experiment, model_name)
    assert (entry.outcome, aliases()["champion"]) == ("promoted", 2)
    assert load_model(f"models:/{model_name}@champion").version == 2


def test_a_version_can_be_given_the_signed_files_of_another_one_which_then_is_no_champion(
    signing, model_name, registered, judge
):
    for right in (170, 190):
        judge(registered(right))
    (one, two), theirs = (registered_file(model_name, version, ".") for version in (1, 2)), tags(model_name, 1)
    shutil.rmtree(two)
    shutil.copytree(one, two)
    MlflowClient().set_model_version_tag(model_name, "2", "artifact_sha256", theirs["artifact_sha256"])
    retag(model_name, 2)
    assert load_model(f"models:/{model_name}/2").version == 2
    with pytest.raises(UserError, match="version 2 was on other files than those of its tag files_sha256"):
        load_model(f"models:/{model_name}@champion")


def test_reconcile_finishes_no_attempt_whose_decision_no_key_signed(
    signing, home, model_name, registered, judge, aliases, monkeypatch
):
    judge(registered(right=170))
    registered(right=50)
    client, forged = MlflowClient(), ready(model_name, 2, 1)
    with monkeypatch.context() as patch:
        patch.delenv(SIGNING_KEY)
        proof.log(client, ledger.begin(client, home.experiment, forged), forged.record or {})
    (entry,) = reconcile(client, home.experiment, model_name)
    assert (entry.outcome, aliases()["champion"]) == ("failed", 1)
    assert "it is unsigned, and REFLUX_VERIFY_KEY is set" in entry.why


def test_the_public_key_is_enough_to_predict_and_to_roll_back_and_shows_classes_that_were_swapped(
    signing, home, model_name, registered, judge, aliases, monkeypatch
):
    judge(registered(right=170))
    judge(registered(right=190))
    monkeypatch.delenv(SIGNING_KEY)
    Image.new("L", (16, 16)).save(home.folder / "black.png")
    assert len(list(predict([home.folder / "black.png"], f"models:/{model_name}@champion"))) == 1
    assert rollback(home.experiment, model_name, "worse") == (1, 2)
    path = registered_file(model_name, 1, "MLmodel")
    path.write_text(path.read_text().replace("- boot", "- x").replace("- dress", "- boot").replace("- x", "- dress"))
    retag(model_name, 1)
    for which in ("@champion", "/1"):
        with pytest.raises(UserError, match=r"its files are not those that were signed \(changed: MLmodel\)"):
            list(predict([home.folder / "black.png"], f"models:/{model_name}{which}"))
