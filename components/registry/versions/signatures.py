"""Signatures of a version's files by OpenSSF's model-signing: who registered a version, and that it is unchanged.

Keys come from the environment, each as a path or as the PEM itself: ``REFLUX_SIGNING_KEY``, a private elliptic-curve
key, signs what is registered; ``REFLUX_VERIFY_KEY``, its public half, checks it. Where only the private one is set, its
public half checks.
"""

import base64
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from reflux.components.core.artifacts import sha256_file
from reflux.components.core.errors import UserError, listed
from reflux.components.registry.versions.files import BY_DOWNLOAD

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey

SIGNING_KEY, VERIFY_KEY = "REFLUX_SIGNING_KEY", "REFLUX_VERIFY_KEY"
SIGNATURE = "model.sig"  # the name that model-signing's own command expects

_CURVES = ("secp256r1", "secp384r1", "secp521r1")
_NAMED = 3
_MODULES = ("model_signing", "OpenSSL")  # model-signing 1.1 imports the second and doesn't bring it
_MAKE = "make one with `openssl ecparam -name prime256v1 -genkey -noout -out signing.pem`"
_EXTRACT = "make it with `openssl ec -in signing.pem -pubout -out verify.pem`"


def check_keys() -> str:
    """Read the keys, before anything relies on them; returns what they do, for people.

    Raises:
        UserError: a key can't be used, the two don't belong together, or model-signing is not installed.
    """
    names = [name for name in (SIGNING_KEY, VERIFY_KEY) if os.environ.get(name)]
    if not names:
        return "unsigned"
    if any(find_spec(module) is None for module in _MODULES):
        raise UserError(
            f"{names[0]} is set, and signatures need the packages model-signing and pyopenssl: `pip install "
            f"model-signing pyopenssl`, or unset {names[0]}."
        )
    private, public = _private_key(), _public_key()
    if private is not None and public is not None and private.public_key() != public:
        raise UserError(
            f"{VERIFY_KEY} is not the public half of {SIGNING_KEY}, so no version that is signed here could be "
            "promoted here: set both of one pair, or only one."
        )
    return "signed and checked" if private is not None else "checked"


def sign(folder: Path) -> None:
    """Sign all files of a model's folder as ``model.sig`` in it; without a key nothing happens.

    Raises:
        UserError: the key can't be used.
    """
    if not os.environ.get(SIGNING_KEY):
        return
    check_keys()
    from model_signing import hashing, signing

    content = hashing.Config().set_ignored_paths(paths=[SIGNATURE, BY_DOWNLOAD], ignore_git_paths=False)
    with _as_file(_pem(SIGNING_KEY)) as key:
        signer = signing.Config().set_hashing_config(content).use_elliptic_key_signer(private_key=key)
        signer.sign(folder, folder / SIGNATURE)


def check_can_sign() -> None:
    """Refuse to decide where decisions are checked and can't be signed.

    Raises:
        UserError: only the public key is set, or a key can't be used.
    """
    check_keys()
    if os.environ.get(VERIFY_KEY) and not os.environ.get(SIGNING_KEY):
        raise UserError(
            f"{VERIFY_KEY} is set, so a decision must be signed: set {SIGNING_KEY}, too, where decisions are taken."
        )


def sign_bytes(content: bytes) -> bytes | None:
    """Sign bytes (ECDSA with SHA-256, as openssl does); None without a key."""
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
    from cryptography.hazmat.primitives.hashes import SHA256

    private = _private_key()
    return None if private is None else private.sign(content, ECDSA(SHA256()))


def find_problem_of_bytes(content: bytes, signature: bytes | None) -> str | None:
    """Find the reason why bytes can't be trusted, without a full stop; None without a key, or if they can.

    Raises:
        UserError: the key can't be used.
    """
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
    from cryptography.hazmat.primitives.hashes import SHA256

    if not _verifies():
        return None
    own = VERIFY_KEY if os.environ.get(VERIFY_KEY) else SIGNING_KEY
    if signature is None:
        return f"it is unsigned, and {own} is set"
    try:
        _own_public_key().verify(signature, content, ECDSA(SHA256()))
    except InvalidSignature:
        return f"it was not signed with {own}, or was changed since"
    return None


def check(name: str, folder: Path) -> None:
    """Refuse a version that is not signed with our key, or was changed since; without a key nothing is checked.

    Args:
        name: the version's, for the sentence.
        folder: its files, fetched from the registry.

    Raises:
        UserError: its signature is missing, of another key, or of other files; or the key can't be used.
    """
    if problem := find_problem(folder):
        raise UserError(f"{name} is refused: {problem}.")


def describe(folder: Path) -> str:
    """Say how far a version's signature is known to be good, for people who look at its lineage."""
    if not (folder / SIGNATURE).is_file():
        return "unsigned"
    return "signed" if _verifies() else f"signed, not checked, as {VERIFY_KEY} is not set"


def find_problem(folder: Path) -> str | None:
    """The reason why a version's files can't be trusted, without a full stop; None without a key, or if they can.

    Raises:
        UserError: the key can't be used.
    """
    if not _verifies():
        return None
    check_keys()
    own = VERIFY_KEY if os.environ.get(VERIFY_KEY) else SIGNING_KEY
    if not (folder / SIGNATURE).is_file():
        return (
            f"it is unsigned, and {own} is set; register it from a run with {SIGNING_KEY}, or unset the key to trust "
            "what is unsigned"
        )
    return _verify(folder, own)


def _verify(folder: Path, own: str) -> str | None:
    from cryptography.exceptions import InvalidSignature
    from model_signing import verifying

    with _as_file(_public_pem()) as key:
        try:
            verifying.Config().use_elliptic_key_verifier(public_key=key).verify(folder, folder / SIGNATURE)
        except InvalidSignature:
            return f"{SIGNATURE} was changed after its key had signed it"
        except (ValueError, TypeError, KeyError, OSError) as error:
            if str(error).startswith("Signature mismatch"):
                return _difference(folder)
            if str(error).startswith("Key mismatch"):
                return f"it was signed with another key than {own}"
            return f"{SIGNATURE} can't be read as a signature"
    return None


def _difference(folder: Path) -> str:
    """Name the files that are not those of a signature whose own content is genuine."""
    payload = json.loads((folder / SIGNATURE).read_text(encoding="utf-8"))["dsseEnvelope"]["payload"]
    resources = json.loads(base64.b64decode(payload))["predicate"]["resources"]
    signed = {each["name"]: each["digest"] for each in resources}
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    present = {name: sha256_file(path) for name, path in files.items() if name not in (SIGNATURE, BY_DOWNLOAD)}
    parts = {
        "changed": {name for name in signed.keys() & present.keys() if signed[name] != present[name]},
        "removed": signed.keys() - present.keys(),
        "added": present.keys() - signed.keys(),
    }
    words = [f"{verb}: {listed(sorted(names), _NAMED)}" for verb, names in parts.items() if names]
    return f"its files are not those that were signed ({'; '.join(words)})"


def _verifies() -> bool:
    return bool(os.environ.get(VERIFY_KEY) or os.environ.get(SIGNING_KEY))


def _pem(name: str) -> bytes:
    """A key as the environment names or holds it."""
    value = os.environ[name]
    if "-----BEGIN" in value:
        return value.encode()
    try:
        return Path(value).read_bytes()
    except OSError as error:
        raise UserError(f"{name} names {value}, which can't be read ({error.strerror}): name a PEM file.") from None


def _private_key() -> "EllipticCurvePrivateKey | None":
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    if not os.environ.get(SIGNING_KEY):
        return None
    try:
        key = load_pem_private_key(_pem(SIGNING_KEY), None)
    except (ValueError, TypeError):
        raise UserError(f"{SIGNING_KEY} is no private key in PEM without a password: {_MAKE}.") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name not in _CURVES:
        raise UserError(f"{SIGNING_KEY} is a key of another kind than P-256, P-384 or P-521: {_MAKE}.")
    return key


def _public_key() -> "EllipticCurvePublicKey | None":
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    if not os.environ.get(VERIFY_KEY):
        return None
    try:
        key = load_pem_public_key(_pem(VERIFY_KEY))
    except ValueError:
        raise UserError(f"{VERIFY_KEY} is no public key in PEM: {_EXTRACT}.") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in _CURVES:
        raise UserError(f"{VERIFY_KEY} is a key of another kind than P-256, P-384 or P-521: {_EXTRACT}.")
    return key


def _own_public_key() -> "EllipticCurvePublicKey":
    private, public = _private_key(), _public_key()
    key = public or (private.public_key() if private else None)
    assert key is not None  # noqa: S101 - _verifies() says so
    return key


def _public_pem() -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return _own_public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


@contextmanager
def _as_file(pem: bytes) -> Iterator[Path]:
    """A key as the file that model-signing reads, in a folder that only this user can open."""
    with tempfile.TemporaryDirectory(prefix="reflux-") as temporary:
        path = Path(temporary, "key.pem")
        path.write_bytes(pem)
        yield path
