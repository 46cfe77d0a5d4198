"""Keys that can't sign or check anything are refused in one sentence, before anything is trained."""

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from reflux.components.core.errors import UserError
from reflux.components.registry.versions import signatures
from reflux.components.registry.versions.signatures import SIGNING_KEY, VERIFY_KEY, check_keys

PKCS8 = PrivateFormat.PKCS8


def curve(kind: type[ec.EllipticCurve] = ec.SECP256R1) -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(kind())


def public(key: ec.EllipticCurvePrivateKey) -> str:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def private(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, password: bytes = b"") -> str:
    encryption = BestAvailableEncryption(password) if password else NoEncryption()
    return key.private_bytes(Encoding.PEM, PKCS8, encryption).decode()


@pytest.fixture(autouse=True)
def _installed(monkeypatch):
    """The checks of the keys need cryptography alone."""
    monkeypatch.setattr(signatures, "find_spec", lambda _: True)


def test_keys_say_what_they_do(monkeypatch):
    assert check_keys() == "unsigned"
    key = curve()
    monkeypatch.setenv(VERIFY_KEY, public(key))
    assert check_keys() == "checked"
    monkeypatch.setenv(SIGNING_KEY, private(key))
    assert check_keys() == "signed and checked"


@pytest.mark.parametrize(
    ("variable", "make", "sentence"),
    [
        (SIGNING_KEY, lambda: "/nowhere/key.pem", "names /nowhere/key.pem, which can't be read (No such file"),
        (
            SIGNING_KEY,
            lambda: private(curve(), b"secret"),
            "is no private key in PEM without a password: make one with",
        ),
        (SIGNING_KEY, lambda: public(curve()), "is no private key in PEM without a password"),
        (SIGNING_KEY, lambda: private(curve(ec.SECP256K1)), "is a key of another kind than P-256, P-384 or P-521"),
        (SIGNING_KEY, lambda: private(rsa.generate_private_key(65537, 2048)), "is a key of another kind than P-256"),
        (VERIFY_KEY, lambda: private(curve()), "is no public key in PEM: make it with `openssl ec -in"),
        (VERIFY_KEY, lambda: public(curve(ec.SECP256K1)), "is a key of another kind than P-256, P-384 or P-521"),
    ],
)
def test_a_key_that_cant_be_used_is_refused_in_a_sentence(monkeypatch, variable, make, sentence):
    monkeypatch.setenv(variable, make())
    with pytest.raises(UserError) as refused:
        check_keys()
    assert str(refused.value).startswith(f"{variable} {sentence}")
    assert "\n" not in str(refused.value)


def test_keys_of_two_pairs_are_refused(monkeypatch):
    monkeypatch.setenv(SIGNING_KEY, private(curve()))
    monkeypatch.setenv(VERIFY_KEY, public(curve()))
    with pytest.raises(UserError, match="REFLUX_VERIFY_KEY is not the public half of REFLUX_SIGNING_KEY"):
        check_keys()


@pytest.mark.parametrize("missing", ["model_signing", "OpenSSL"])
def test_a_key_without_a_package_is_refused(monkeypatch, missing):
    monkeypatch.setattr(signatures, "find_spec", lambda module: None if module == missing else object())
    monkeypatch.setenv(SIGNING_KEY, private(curve()))
    with pytest.raises(UserError, match=r"REFLUX_SIGNING_KEY is set, and .*: `pip install model-signing pyopenssl`"):
        check_keys()
