"""What the next run computes, what it restores, and why: asked of DVC, also for params that are not written yet."""

import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

from reflux.components.core.artifacts import ARTIFACTS, fingerprint, read_json
from reflux.components.core.contract import STAGES
from reflux.components.core.dvc_yaml import PIPELINE
from reflux.components.core.errors import UserError, listed
from reflux.components.core.params.file import PARAMS
from reflux.components.core.params.sections import Params
from reflux.components.core.runtime import installed
from reflux.components.stages.finetune.strategy import learns_from_unlabeled
from reflux.flows.repo import dataset
from reflux.flows.repo.checkout import refusals_of_dvc
from reflux.flows.repo.images import Images, counts_of_others, look

if TYPE_CHECKING:
    from dvc.repo import Repo

Fate = Literal["computed", "restored", "unchanged"]

# It makes training wait for the data's checks, and is the same whenever they pass.
_NEVER_CHANGES = str(ARTIFACTS / "validate" / "passed")
# They name the images that teach the teacher without a label, and those that pretraining learns from, if any do.
_TEACHING, _PRETRAINING = str(ARTIFACTS / "validate" / "unlabeled.json"), str(ARTIFACTS / "ingest" / "pretraining.json")
_PRETRAIN_SOURCE = str(ARTIFACTS / "ingest" / "pretrain-source")
_UNLABELED = str(ARTIFACTS / "ingest/shards/unlabeled")
_PRETRAINED_ON = frozenset(str(ARTIFACTS / "ingest" / "shards" / split) for split in ("train", "val", "unlabeled"))
_UNSET = object()
_CODE, _SHOWN = "code in ", 3
_NEW = "it was not computed before"


@dataclass(frozen=True)
class Change:
    """What happens to a stage in the next run: computed, restored from what was computed before, or unchanged."""

    fate: Fate
    why: tuple[str, ...] = ()


def outdated(params: Params) -> frozenset[str]:
    """The stages that read weights, names of classes or a dataset not the run's own, whose content may have changed.

    DVC only knows the name. In a fresh clone, where no artifact holds the hash of its content, they must run.
    """
    starts = {"model.json": params.pretrain.weights, "student/model.json": params.student.weights}
    origins = {ARTIFACTS / "pretrain" / name: weights for name, weights in starts.items()}
    changed = {"pretrain"} if any(_differs(weights, origin, "sha256") for origin, weights in origins.items()) else set()
    distilled = ARTIFACTS / "distill" / "run.json"
    names, pretrained = params.pretrain.classes, ARTIFACTS / "pretrain" / "run.json"
    if params.pretrain.mode == "zero-shot" and _differs(names, pretrained, "inputs", names):
        changed |= {"pretrain"}
    if any(_differs(teacher, distilled, "inputs", teacher) for teacher in params.distill.teachers):
        changed |= {"label", "distill"}
    ingested = ARTIFACTS / "ingest" / "run.json"
    if any(_differs(path, ingested, "inputs", path) for path in [*params.datasets.values()][1:]):
        changed |= {"ingest"}
    return frozenset(changed)


def _differs(weights: str, artifact: Path, *keys: str) -> bool:
    """Whether a file or folder is not the one whose sha256 an artifact holds under some keys."""
    if not Path(weights).exists():
        return False
    if not artifact.is_file():
        return True
    value = read_json(artifact)
    for key in keys:
        value = value.get(key, {})
    return bool(value != fingerprint(Path(weights)))


@dataclass(frozen=True)
class Foreseen:
    """What the next run will do.

    Attributes:
        changes: by stage.
        counts: the images in each split, as far as can be known before they are decoded, and of other datasets.
        classes: their number.
        added: by split, the images that the last ``ingest`` did not know.
    """

    changes: Mapping[str, Change]
    counts: Mapping[str, int]
    classes: int
    added: Mapping[str, int]


def foresee(text: str, params: Params, remote: str | None, pipeline: str | None = None) -> Foreseen:
    """Say what the next run will do, without computing or changing anything.

    Args:
        text: of ``params.yaml``, as the run will read it.
        params: the same, parsed.
        remote: the name of DVC's default remote, if there is one.
        pipeline: the text of ``dvc.yaml``, if it will be another than it is.

    Raises:
        UserError: the dataset is not here, DVC's remote does not answer, or DVC refuses a file such as ``dvc.yaml``.
    """
    from dvc.repo import Repo

    overlaid = {PARAMS: text, installed.FILE: json.dumps(installed.deciding(params, pipeline=pipeline))}
    overlaid |= {PIPELINE: pipeline} if pipeline else {}
    texts = {str(path.absolute()): content for path, content in overlaid.items()}
    forced = outdated(params)
    with refusals_of_dvc(), Repo(fs=_overlay(texts)) as repo:
        foresight = _Foresight(repo, remote, params)
        changes = {name: foresight.stage(name, name in forced) for name in STAGES}
        others = counts_of_others(params)
        if images := foresight.images:
            return Foreseen(changes, {**images.counts, **others}, images.classes, images.added)
        dataset = foresight.read(ARTIFACTS / "ingest" / "dataset.json")
    return Foreseen(changes, dataset["counts"] | others, len(dataset["classes"]), {})


def differences(before: Any, after: Any, name: str = "") -> Iterator[str]:
    """List the values that differ, by their names: ``student.steps: 1500 → 3000``."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in {**before, **after}:
            yield from differences(before.get(key, _UNSET), after.get(key, _UNSET), f"{name}.{key}".lstrip("."))
    elif (list(before) if isinstance(before, tuple) else before) != (
        list(after) if isinstance(after, tuple) else after
    ):
        yield f"{name}: {_text(before)} → {_text(after)}"


def _of_installation(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    """List what differs of the code, the defaults and the packages that a stage's result is known by."""
    kinds = ("code", "defaults", "packages")
    (old, new), defaults, releases = ((before.get(kind, {}), after.get(kind, {})) for kind in kinds)
    yield from (f"{_CODE}{part}" for part in {**old, **new} if old.get(part) != new.get(part))
    yield from (f"the default of {each}" for each in differences(*defaults))
    yield from differences(*releases)


def _shortened(changes: list[str]) -> list[str]:
    """The first few changes of params and data, and then those of code in one."""
    code = [each.removeprefix(_CODE) for each in changes if each.startswith(_CODE)]
    rest = [each for each in changes if not each.startswith(_CODE)]
    more = [f"{len(rest) - _SHOWN} more"] * (len(rest) > _SHOWN)
    return [*rest[:_SHOWN], *more, *[f"{_CODE}{listed(code, _SHOWN)}"] * bool(code)]


def _text(value: Any) -> str:
    return "unset" if value is _UNSET else json.dumps(value, default=str, ensure_ascii=False).strip('"')


def _overlay(texts: Mapping[str, str]) -> Any:
    """The file system as it will be: these files have another text, by their path, than is on disk."""
    from dvc.fs import LocalFileSystem

    class Overlay(LocalFileSystem):
        def open(self, path: Any, mode: str = "r", **options: Any) -> IO[Any]:
            return io.StringIO(texts[path]) if path in texts else super().open(path, mode, **options)

        def exists(self, path: Any, *arguments: Any, **options: Any) -> Any:
            known = isinstance(path, str) and path in texts
            return known or super().exists(path, *arguments, **options)

    return Overlay()


class _Foresight:
    """Goes through the stages in their order and keeps what each will leave: DVC's hashes, where they can be known.

    A stage and its deps are DVC's own objects; the hash that ``dvc.lock`` has for a dep is replaced by the next run's.
    """

    def __init__(self, repo: "Repo", remote: str | None, params: Params) -> None:
        self._repo, self._remote, self._settings = repo, remote, params.ingest
        self._teaching = learns_from_unlabeled(params.finetune.rounds, params.finetune.adaptation)
        self._by_the_data = params.pretrain.mode in ("self-supervised", "zero-shot")
        self._with_labels = params.pretrain.dataset is not None
        own = str(PIPELINE.absolute())
        stages = (each for each in repo.index.stages if hasattr(each, "name") and each.path == own)
        self._stages: dict[str, Any] = {each.name: each for each in stages}
        self._outs: dict[str, tuple[str, Any]] = {}  # by path: the stage's name, and the out if its hash is known
        self.images: Images | None = None  # of the dataset, if it is ingested anew

    def stage(self, name: str, forced: bool) -> Change:
        """What happens to a stage, after those before it."""
        stage = self._stages[name]
        locked = {out.def_path: out.hash_info for out in stage.outs if out.hash_info}
        own, upstream, unknown = ["its command"] * stage.cmd_changed, dict[str, None](), False
        for dep in stage.deps:
            if dep.def_path in self._outs:
                maker, out = self._outs[dep.def_path]
                unknown |= out is None
                if out is None or out.hash_info != dep.hash_info:
                    upstream[maker] = None
                if out is not None:
                    dep.hash_info, dep.meta = out.hash_info, out.meta
            else:
                own += self._changes_of(dep)
        *others, last = upstream or [""]
        above = f"{', '.join(others)} and {last} change" if others else f"{last} changes"
        why: tuple[str, ...] = (*_shortened(own), *[above] * bool(upstream)) if locked else (_NEW,)
        if forced:
            change = Change("computed", ("a file of weights or another dataset may have another content",))
        elif not unknown:
            change = self._decide(stage, why)
        else:
            change = Change("computed", why)
        spared: set[str] = set()
        if name == "ingest" and change.fate == "computed":
            self.images = look(self._settings)
            if change.why == (f"data in {self._settings.source}",):
                spared |= self.images.spared
                change = Change("computed", (*change.why, *filter(None, [self.images.difference()])))
        spared |= self._standing_in(name, spared)
        for out in stage.outs:
            stays = out.def_path in spared and out.def_path in locked
            self._outs[out.def_path] = (name, out if change.fate != "computed" or stays else None)
        return change

    def _standing_in(self, name: str, spared: set[str]) -> set[str]:
        """The stage's outs that stand for images and stay as they are, if the ``spared`` ones do."""
        if name == "ingest":
            others_stay = {_PRETRAINING: not self._by_the_data or spared >= _PRETRAINED_ON}
            others_stay[_PRETRAIN_SOURCE] = not self._with_labels
            return {path for path, stays in others_stay.items() if stays}
        images_stay = name == "validate" and (not self._teaching or self._outs[_UNLABELED][1] is not None)
        return {_NEVER_CHANGES, _TEACHING} if images_stay else {_NEVER_CHANGES}

    def read(self, path: Path) -> Any:
        """A JSON file among the outs, as the run will restore it or leave it."""
        out = self._outs[str(path)][1]
        if path.is_file() and not out.workspace_status():
            return read_json(path)
        store = next(store for store in self._stores if store.exists(out.hash_info.value))
        with store.fs.open(store.oid_to_path(out.hash_info.value), "r") as file:
            return json.load(file)

    def _changes_of(self, dep: Any) -> list[str]:
        """How a dep that no stage makes differs from ``dvc.lock``, by name."""
        from dvc_data.hashfile.hash_info import HashInfo
        from dvc_data.hashfile.meta import Meta

        before = dep.hash_info
        if dep.hash_name == "params":
            values = dep.read_params()
            dep.hash_info = HashInfo("params", values)
            if dep.def_path != str(installed.FILE):
                return list(differences(before.value or {}, values))
            return list(_of_installation(*(next(iter((each or {}).values()), {}) for each in (before.value, values))))
        if not dep.exists:
            dep.hash_info, dep.meta = HashInfo("md5", dataset.version(self._settings.source)), Meta()
        else:
            dep.hash_info, dep.meta = dep.get_hash(), dep.get_meta()
        return [f"data in {dep.def_path}"] * (dep.hash_info != before)

    def _decide(self, stage: Any, why: tuple[str, ...]) -> Change:
        """What happens to a stage whose deps are all known."""
        if not why:
            if all(not out.status() for out in stage.outs):
                return Change("unchanged")
            place = self._place_of_outs(stage)
            return Change("restored", (place,)) if place else Change("computed", ("its result is no longer kept",))
        place = self._earlier(stage)
        return Change("restored", (*(why if why != (_NEW,) else ()), place)) if place else Change("computed", why)

    def _earlier(self, stage: Any) -> str | None:
        """Look for the stage with its present deps among all that was ever computed; its outs are known then."""
        from dvc.stage.loader import StageLoader
        from dvc.stage.serialize import to_single_stage_lockfile
        from dvc.utils import dict_sha256

        entry = to_single_stage_lockfile(stage)
        entry["outs"] = [out["path"] for out in entry["outs"]]
        key = dict_sha256(entry, exclude=["size", "nfiles"])  # as DVC's run cache, dvc/stage/cache.py
        for store in self._run_caches:
            folder = store.fs.join(store.path, "runs", key[:2], key)
            for path in store.fs.find(folder) if store.fs.exists(folder) else ():
                with store.fs.open(path, "r") as file:
                    StageLoader.fill_from_lock(stage, _yaml(file.read()))
                if place := self._place_of_outs(stage):
                    return place
        return None

    def _place_of_outs(self, stage: Any) -> str | None:
        """Where the stage's outs are kept."""
        if stage.outs_cached():
            return "an earlier run's result"
        for store in self._stores[1:]:
            if all(store.exists(out.hash_info.value) for out in stage.outs):
                return f"from DVC's remote {self._remote}"
        return None

    @cached_property
    def _stores(self) -> list[Any]:
        return [self._repo.cache.local, *self._remotes("md5")]

    @cached_property
    def _run_caches(self) -> list[Any]:
        return [self._repo.cache.legacy, *self._remotes("md5-dos2unix")]

    def _remotes(self, hash_name: str) -> list[Any]:
        if self._remote is None:
            return []
        try:
            remote = self._repo.cloud.get_remote_odb(self._remote, "plan", hash_name=hash_name)
            remote.fs.exists(remote.path)
        except Exception as error:  # whatever the client of its storage raises
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise UserError(
                f"DVC's remote {self._remote} does not answer ({reason}): start it, or correct it (`dvc remote list`)."
            ) from None
        return [remote]


def _yaml(text: str) -> Any:
    from ruamel.yaml import YAML

    return YAML(typ="safe").load(text)
