"""A version's bill of materials (CycloneDX): what it was made from, and the packages that trained and serve it."""

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from reflux.components.core.artifacts import read_json
from reflux.components.core.contract import STAGES

if TYPE_CHECKING:
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component, ComponentScope

SBOM = "sbom.cdx.json"

_PROJECT = "reflux"
_LONGEST_LICENSE = 100  # what is longer is the text of one, not its name
_CLASSIFIER = "License :: "


def write(
    path: Path, network: str, sha256: str, served_by: Iterable[str], artifacts: Path, origin: Mapping[str, str]
) -> None:
    """Write the bill of a version; without cyclonedx-python-lib nothing is written.

    Packages that serve the version have the scope ``required``, those that only trained it ``excluded``. They are this
    environment's, with the releases that each training stage has recorded where it ran.

    Args:
        path: the file.
        network: the student's network.
        sha256: of the file that ships.
        served_by: requirements of the version, as in its ``requirements.txt``.
        artifacts: the pipeline's output folder.
        origin: tags on the data and the pretrained weights.
    """
    if find_spec("cyclonedx") is None:
        return
    from cyclonedx.output import make_outputter
    from cyclonedx.schema import OutputFormat, SchemaVersion

    bom = _bom(network, sha256, list(served_by), artifacts, origin)
    text = make_outputter(bom, OutputFormat.JSON, SchemaVersion.V1_6).output_as_string(indent=1)
    path.write_text(text, encoding="utf-8")


@dataclass(frozen=True)
class Package:
    """An installed package: what its metadata say."""

    name: str
    version: str
    license: str | None
    requirements: tuple[Requirement, ...]

    def needs(self, extras: frozenset[str] = frozenset()) -> list[Requirement]:
        """What it needs in this interpreter, with some of its extras."""
        return [
            each
            for each in self.requirements
            if each.marker is None or any(each.marker.evaluate({"extra": extra}) for extra in (extras or {""}))
        ]


def required(roots: Iterable[str]) -> dict[str, Package]:
    """The installed packages that requirements ask for, directly or not, by their canonical names."""
    found: dict[str, Package] = {}
    waiting = [Requirement(root) for root in roots]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        asked = waiting.pop()
        name, extras = canonicalize_name(asked.name), frozenset(asked.extras)
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        package = _installed(name)
        if package is None:  # asked for by a marker that this interpreter reads otherwise
            continue
        found[name] = package
        waiting += package.needs(extras)
    return found


@cache
def _installed(name: str) -> Package | None:
    try:
        package = distribution(name)
    except PackageNotFoundError:
        return None
    facts = package.metadata
    requirements = []
    for line in facts.get_all("Requires-Dist") or ():
        # Old packages have some that today's rules refuse; pip leaves them out, too.
        with suppress(InvalidRequirement):
            requirements.append(Requirement(line))
    classifiers = [line for line in facts.get_all("Classifier") or () if line.startswith(_CLASSIFIER)]
    licenses = [text for key in ("License-Expression", "License") for text in facts.get_all(key) or ()]
    licenses += [line.rpartition(" :: ")[2] for line in classifiers]
    short = [text for text in licenses if text and len(text) <= _LONGEST_LICENSE and "\n" not in text]
    return Package(name, package.version, next(iter(short), None), tuple(requirements))


def trained_with(artifacts: Path) -> dict[str, str]:
    """The releases that the training stages recorded, such as ``torch 2.13.0+cpu``; the last stage's count."""
    runs = [artifacts / name / "run.json" for name, stage in STAGES.items() if stage.trains]
    environments = [read_json(run).get("environment", {}) for run in runs if run.is_file()]
    names = {package for stage in STAGES.values() for package in stage.packages}
    return {name: env[name] for env in environments for name in names if name in env}


def _bom(network: str, sha256: str, served_by: list[str], artifacts: Path, origin: Mapping[str, str]) -> "Bom":
    from cyclonedx.model import HashAlgorithm, HashType
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component, ComponentScope, ComponentType

    model = ComponentType.MACHINE_LEARNING_MODEL
    student = Component(
        name=network, type=model, bom_ref="model", hashes=[HashType(alg=HashAlgorithm.SHA_256, content=sha256)]
    )
    serves, trains = required(served_by), required([_PROJECT])
    releases = trained_with(artifacts)
    components = {
        name: _package(
            package, releases.get(name), ComponentScope.REQUIRED if name in serves else ComponentScope.EXCLUDED
        )
        for name, package in (trains | serves).items()
    }
    sources = [_dataset(artifacts, origin), *_pretrained(origin)]
    bom = Bom(components=[*components.values(), *sources])
    bom.metadata.component = student
    roots = {canonicalize_name(Requirement(line).name) for line in (*served_by, _PROJECT)}
    bom.register_dependency(student, [*(components[name] for name in sorted(roots & components.keys())), *sources])
    for name, package in (trains | serves).items():
        needs = {canonicalize_name(each.name) for each in package.needs()}
        bom.register_dependency(components[name], [components[need] for need in sorted(needs & components.keys())])
    return bom


def _package(package: Package, release: str | None, scope: "ComponentScope") -> "Component":
    from cyclonedx.contrib.license.factories import LicenseFactory
    from cyclonedx.model.component import Component
    from packageurl import PackageURL

    version = release or package.version
    index = "generic" if package.name == _PROJECT else "pypi"  # PyPI's package of this name is another project's
    purl = PackageURL(index, name=package.name, version=version)
    licenses = [LicenseFactory().make_from_string(package.license)] if package.license else []
    return Component(
        name=package.name, version=version, bom_ref=purl.to_string(), purl=purl, scope=scope, licenses=licenses
    )


def _dataset(artifacts: Path, origin: Mapping[str, str]) -> "Component":
    from cyclonedx.model import Property
    from cyclonedx.model.component import Component, ComponentType

    dataset = read_json(artifacts / "ingest" / "dataset.json")
    properties = [
        Property(name=f"{_PROJECT}:fingerprint:{split}", value=value)
        for split, value in dataset["fingerprints"].items()
    ]
    if md5 := origin.get("dvc.data_md5"):
        properties.append(Property(name=f"{_PROJECT}:dvc.data_md5", value=md5))
    return Component(name=dataset["name"], type=ComponentType.DATA, bom_ref="dataset", properties=properties)


def _pretrained(origin: Mapping[str, str]) -> "Iterator[Component]":
    from cyclonedx.model import HashAlgorithm, HashType, Property
    from cyclonedx.model.component import Component, ComponentType

    if "pretrained.model" not in origin:
        return
    sha256 = origin.get("pretrained.sha256", "")
    known = re.fullmatch("[0-9a-f]{64}", sha256) is not None
    yield Component(
        name=origin["pretrained.model"],
        type=ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref="pretrained",
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=sha256)] if known else [],
        properties=[Property(name=f"{_PROJECT}:weights", value=origin.get("pretrained.weights", "unknown"))],
    )
