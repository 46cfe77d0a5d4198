"""Push a version's files to an OCI registry, where any of its clients finds them."""

import json
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from ruamel.yaml import YAML

from reflux.components.core.errors import UserError
from reflux.components.registry import client
from reflux.components.registry.versions import signatures
from reflux.components.registry.versions.evaluated_run import CARD
from reflux.components.registry.versions.files import EVALUATION, VersionFiles, fetch_files

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

_TARGET = re.compile(r"(?P<registry>[\w.-]+(:\d+)?)/(?P<repository>[a-z0-9._/-]+?)(:(?P<tag>\w[\w.-]*))?")
_LOCAL = ("localhost", "127.0.0.1")
_PATIENCE_S = 10.0
_FILE = "application/octet-stream"
_PREFIX = "org.opencontainers.image."


@dataclass(frozen=True)
class Published:
    """A version in a registry: its reference, its manifest's digest, and the number of its files."""

    reference: str
    digest: str
    files: int


def publish(model_name: str, number: int, target: str) -> Published:
    """Push all files of a version as one artifact, each as a layer that is titled with its path.

    Credentials are those of ``docker login`` or ``oras login``. A registry on this machine is spoken to over HTTP.

    Args:
        model_name: the registered model.
        number: the version's.
        target: ``registry/repository`` or ``registry/repository:tag``; the tag is the version's number by default.

    Raises:
        UserError: the target is none, the registry refuses it or does not answer, there is no such version, its files
            were changed, or oras is not installed.
        Unreachable: MLflow does not answer.
    """
    parts = _TARGET.fullmatch(target)
    if parts is None:
        raise UserError(f"{target} is no place in an OCI registry: give one such as registry.example.com/team/flowers.")
    if find_spec("oras") is None:
        raise UserError("Publishing needs the package oras: `pip install 'reflux[publish]'`.")
    _ping(parts["registry"])
    reference = f"{parts['registry']}/{parts['repository']}:{parts['tag'] or number}"
    mlflow = client.connect()
    with client.translate_errors():
        version = client.version(mlflow, model_name, number)
        with fetch_files(version) as files:
            signatures.check(f"{model_name} version {number}", files.folder)
            return _push(files.folder, reference, _annotations(version, files))


def _ping(registry: str) -> None:
    """Ask whether anything answers: oras would try for two minutes."""
    import requests

    scheme = "http" if _insecure(registry) else "https"
    try:
        requests.get(f"{scheme}://{registry}/v2/", timeout=_PATIENCE_S)
    except requests.RequestException as error:
        reason = type(error).__name__
        raise UserError(f"No OCI registry answers at {scheme}://{registry} ({reason}): check the address.") from None


def _insecure(registry: str) -> bool:
    return registry.partition(":")[0] in _LOCAL


def _push(folder: Path, reference: str, annotations: Mapping[str, str]) -> Published:
    import requests
    from oras.client import OrasClient

    every = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    names = [name for name in every if name != signatures.BY_DOWNLOAD]
    titles = {str(folder / name): {f"{_PREFIX}title": name} for name in names}
    with tempfile.NamedTemporaryFile("w", prefix="reflux-", suffix=".json", encoding="utf-8") as file:
        json.dump(titles, file)
        file.flush()
        try:
            answer = OrasClient(insecure=_insecure(reference.partition("/")[0])).push(
                reference,
                files=[f"{folder / name}:{_FILE}" for name in names],
                annotation_file=file.name,
                manifest_annotations=dict(annotations),
                disable_path_validation=True,
                quiet=True,
            )
        except (ValueError, requests.RequestException) as error:
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise UserError(f"{reference} was not pushed ({reason}): check the address, and `docker login`.") from None
    return Published(reference, answer.headers.get("Docker-Content-Digest", ""), len(names))


def _annotations(version: "ModelVersion", files: VersionFiles) -> dict[str, str]:
    """What registries show of an artifact, by the keys of the OCI image specification; unknown ones are absent."""
    facts = {
        "title": version.name,
        "version": str(version.version),
        "created": datetime.fromtimestamp(version.creation_timestamp / 1000, UTC).isoformat(),
        "revision": version.tags.get("git.sha"),
        "licenses": _license(files.folder / EVALUATION / CARD),
        "description": f"{files.metadata['student']}, an image classifier of {len(files.classes)} classes",
    }
    return {f"{_PREFIX}{name}": value for name, value in facts.items() if value}


def _license(card: Path) -> str | None:
    """The license that a card's front matter states."""
    if not card.is_file():
        return None
    before, _, rest = card.read_text(encoding="utf-8").partition("---\n")
    if before:  # of an older release, whose cards have no front matter
        return None
    stated: str | None = YAML(typ="safe").load(rest.partition("---\n")[0]).get("license")
    return stated
