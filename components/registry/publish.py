"""Push a version's files to an OCI registry or the Hugging Face hub, where any of their clients finds them."""

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from ruamel.yaml import YAML

from reflux.components.core.errors import UserError
from reflux.components.registry import client
from reflux.components.registry.targets.hugging_face import SCHEME, Repository
from reflux.components.registry.targets.oci import Registry
from reflux.components.registry.targets.target import Published, Target
from reflux.components.registry.versions import signatures
from reflux.components.registry.versions.evaluated_run import CARD
from reflux.components.registry.versions.files import BY_DOWNLOAD, EVALUATION, VersionFiles, fetch_files

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

_OCI = re.compile(r"(?P<registry>[\w.-]+(:\d+)?)/(?P<repository>[a-z0-9._/-]+?)(:(?P<tag>\w[\w.-]*))?")
_HUB = re.compile(rf"{SCHEME}(?P<name>[\w.-]+/[\w.-]+)")


def publish(model_name: str, number: int, target: str, public: bool = False) -> Published:
    """Push all files of a version.

    Args:
        model_name: the registered model.
        number: the version's.
        target: ``registry/repository[:tag]``, whose tag is the version's number by default, or ``hf://user/name``.
        public: make a new repository on the hub public, or push to one that is.

    Raises:
        UserError: the target is none, refuses the files or does not answer, there is no such version, its files were
            changed, or a package or token is missing.
        Unreachable: MLflow does not answer.
    """
    place = _place(target, number, public)
    place.check()
    mlflow = client.connect()
    with client.translate_errors():
        version = client.version(mlflow, model_name, number)
        with fetch_files(version) as files:
            signatures.check(f"{model_name} version {number}", files.folder)
            folder = files.folder
            every = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
            names = [name for name in every if name != BY_DOWNLOAD]
            return place.push(folder, names, _facts(version, files))


def _place(target: str, number: int, public: bool) -> Target:
    if target.startswith(SCHEME):
        hub = _HUB.fullmatch(target)
        if hub is None:
            raise UserError(f"{target} is no repository on the hub: give one such as hf://user/flowers.")
        return Repository(hub["name"], f"{EVALUATION}/{CARD}", public)
    oci = _OCI.fullmatch(target)
    if oci is None:
        raise UserError(
            f"{target} is no place in an OCI registry: give one such as registry.example.com/team/flowers, or "
            "hf://user/flowers for the Hugging Face hub."
        )
    if public:
        raise UserError(f"--public is for the hub: who may read {target} is up to its registry.")
    return Registry(oci["registry"], oci["repository"], oci["tag"] or str(number))


def _facts(version: "ModelVersion", files: VersionFiles) -> dict[str, str]:
    """What registries show of a version, by the keys of the OCI image specification; unknown ones are absent."""
    facts = {
        "title": version.name,
        "version": str(version.version),
        "created": datetime.fromtimestamp(version.creation_timestamp / 1000, UTC).isoformat(),
        "revision": version.tags.get("git.sha"),
        "licenses": _license(files.folder / EVALUATION / CARD),
        "description": f"{files.metadata['student']}, an image classifier of {len(files.classes)} classes",
    }
    return {name: value for name, value in facts.items() if value}


def _license(card: Path) -> str | None:
    """The license that a card's front matter states."""
    if not card.is_file():
        return None
    before, _, rest = card.read_text(encoding="utf-8").partition("---\n")
    if before:  # of an older release, whose cards have no front matter
        return None
    stated: str | None = YAML(typ="safe").load(rest.partition("---\n")[0]).get("license")
    return stated
