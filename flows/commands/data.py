"""``reflux data add``: a dataset is profiled, copied, put under DVC, and a plan for it written to ``params.yaml``."""

import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from reflux.components.core.artifacts import atomic
from reflux.components.core.errors import UserError, printable
from reflux.components.core.params.file import PARAMS, check_overrides, load_params, override_params
from reflux.components.core.params.sections import Params
from reflux.components.core.project import root
from reflux.components.core.runtime.machine import usable_cores
from reflux.flows.local.environment import reflux_command
from reflux.flows.local.pipelines import current
from reflux.flows.local.supervised import STAGE_ENVIRONMENT
from reflux.flows.pipeline.speeds import measure
from reflux.flows.repo.checkout import prepare_dvc
from reflux.flows.repo.dataset import track
from reflux.flows.report.display import console
from reflux.flows.report.plan import plan_table

if TYPE_CHECKING:
    from reflux.components.advice.plan.choice import Answers, Choice, Wishes
    from reflux.components.advice.plan.profile import Look, Profile
    from reflux.components.stages.ingest.items import Source

DATA = Path("data")
_REPLACED = Path(".reflux/replaced")
_IMAGES_CHECKED, _SAMPLES = 200, 5


def add(
    path: Path,
    name: str | None = None,
    minutes: float = 10,
    max_kb: float | None = None,
    min_accuracy: float | None = None,
    pipeline: str = "",
) -> str:
    """Copy a dataset to ``data/<name>``, put it under DVC, and write a plan for it to ``params.yaml``.

    One that is already in ``data/`` stays where it is. Experiment and registered model are renamed with it,
    because a champion of another dataset is no fair comparison; those of a pipeline have the pipeline's name.

    Args:
        path: the dataset's folder, or a file that holds the images itself.
        name: its name in ``data/``; by default its own.
        minutes: that a run may take.
        max_kb: that the file that ships may have; None for the default's.
        min_accuracy: of the student; None for one that is clearly above chance.
        pipeline: the name of the working folder's pipeline, if the folder does not have it yet.

    Returns:
        The message for the user: the dataset, and what to do next.

    Raises:
        UserError: it is no dataset, its images can't be read, it contains this project, the name is in use, DVC
            refuses it, or what was asked for is impossible. Nothing is left half-done.
    """
    from reflux.components.advice.plan.choice import Wishes, as_assignments
    from reflux.components.advice.plan.rules import refuse_wishes
    from reflux.components.advice.plan.teacher import is_own_teacher

    params = load_params()
    wishes = Wishes(minutes, max_kb, min_accuracy, is_own_teacher(params))
    refuse_wishes(wishes)
    _refuse_path(path)
    dataset, group, columns = _opened(path, params)
    _refuse_classes(path, dataset.classes)
    # Opened anew for each pass: the items of a reader may be a generator.
    unread = _unreadable_kinds(path, _opened(path, params)[0], params.ingest.max_quarantined)
    target, inside = _target(path, name)
    print(f"Looking at {dataset.count:,} images …", flush=True)
    profile, look = _looked_at(dataset, path, group, params)
    chosen, seconds = _plan(profile, wishes, _asked(profile, look, wishes, params))
    pipeline = pipeline or current()
    names = _names(target, pipeline or (target.stem if path.is_file() else target.name))
    chosen = [*names, *_not_of(target, params), *columns, *chosen]
    check_overrides(as_assignments(chosen))
    print(f"Adding {dataset.count:,} images to DVC in {target} …", flush=True)
    before = PARAMS.read_bytes()
    tracked = _added(path, target, inside, chosen)
    console().print(plan_table(profile, chosen, seconds, wishes.minutes))
    doubts = "".join(f"Warning: {printable(doubt)}.\n" for doubt in (*dataset.doubts, *unread))
    return (
        f"{target}: {dataset.count:,} images ({'color' if profile.color else 'gray'}), {len(dataset.classes)} classes; "
        f"{tracked}\nparams.yaml has this plan now, with the reason next to each value.\n{doubts}"
        f"{_keep(before, params.ingest.source, target)}"
        f"Next: {reflux_command()} run{f' --pipeline {pipeline}' if pipeline else ''}"
    )


def _added(path: Path, target: Path, inside: bool, chosen: "Sequence[Choice]") -> str:
    """Copy a dataset to where it belongs, put it under DVC and write its plan; returns what DVC tracks, in words."""
    from reflux.components.advice.plan.choice import as_assignments

    prepare_dvc()
    with _undone_if_it_fails(target, inside):
        if not inside:
            _copy(path, target)
        tracked = track(target)
        override_params(as_assignments(chosen), comments={each.param: each.reason for each in chosen if each.reason})
    return tracked


def _keep(before: bytes, source: str, target: Path) -> str:
    """Keep the params of another dataset that is still here; returns a sentence on them, empty if there is none."""
    if Path(source) == target or not Path(source).exists():
        return ""
    kept = _REPLACED / f"{Path(source).name}.params.yaml"
    with atomic(kept) as temporary:
        temporary.write_bytes(before)
    return (
        f"Note: the params of {source}, which {PARAMS} had until now, are in {kept}. For a model of each, copy them "
        "back, and add this dataset with `--pipeline NAME`.\n"
    )


def _names(target: Path, name: str) -> "list[Choice]":
    """What is named after a dataset, or after its pipeline."""
    from reflux.components.advice.plan.choice import Choice

    names = {"ingest.source": str(target), "project.name": name, "registry.model_name": f"{_slug(name)}-student"}
    return [Choice(param, name, "") for param, name in names.items()]


def _not_of(target: Path, params: Params) -> "list[Choice]":
    """Leave out the source domain of the dataset before, and its license if it is another one than ``target``."""
    from reflux.components.advice.plan.choice import Choice

    ingest, choices = params.ingest, []
    if ingest.source_domain is not None:
        why = f"{ingest.source_domain} was the source domain of the dataset before"
        choices = [Choice("ingest.source_domain", None, why), Choice("finetune.adaptation", "none", why)]
    if ingest.license is not None and ingest.source != str(target):
        choices.append(Choice("ingest.license", None, f"{ingest.license} was the license of {ingest.source}"))
    return choices


def _refuse_path(path: Path) -> None:
    if not path.exists():
        raise UserError(f"{path} does not exist: give the folder of your dataset.")
    if path.is_file() and not _holds_images(path):
        raise UserError(f"{path} is a file: give the folder that contains it and its images.")
    if any(folder.resolve().is_relative_to(path.resolve()) for folder in (root(), root() / DATA)):
        raise UserError(f"{path} contains this project's data folder: give the folder of your dataset alone.")


def _holds_images(file: Path) -> bool:
    """Tell a file that is a whole dataset from a manifest, whose images would stay behind.

    Raises:
        UserError: it is no dataset.
    """
    from reflux.components.stages.ingest.source import open_source

    return any(isinstance(item.data, bytes) for item in islice(open_source(file).items, 1))


def _refuse_classes(path: Path, classes: Sequence[str]) -> None:
    if not classes:
        raise UserError(f"{path} has no labeled images: put some of each class into a folder named after it.")
    if len(classes) < 2:
        inner = path / classes[0]
        hint = f"; if {inner} is the dataset, give that" if sum(f.is_dir() for f in inner.glob("*")) > 1 else ""
        raise UserError(f"{path} has fewer than two classes ({classes[0]}): a classifier needs at least two{hint}.")


def _target(path: Path, name: str | None) -> tuple[Path, bool]:
    """The dataset's place in ``data/``, and whether it is there already.

    Raises:
        UserError: another dataset has the name, or this one is there under another.
    """
    data, own = root() / DATA, path.resolve()
    inside = own.parent == data.resolve()
    stem, suffix = (own.stem, own.suffix) if own.is_file() else (own.name, "")
    if inside and name not in (None, stem):
        raise UserError(f"{path} is in data/ already, where --name {name} renames nothing: rename it, or omit --name.")
    target = data / (own.name if inside else _slug(name or stem) + suffix)
    if target.exists() and not inside:
        raise UserError(f"{target} exists: choose another name with `--name`, or remove it.")
    return target, inside


def _opened(path: Path, params: Params) -> "tuple[Source, int | None, list[Choice]]":
    """Open a dataset with the columns that the params name, or without them where it has none of these.

    Returns:
        The dataset; the place of ``ingest.group`` among its items' slices; and what must change in the params.

    Raises:
        UserError: it is no dataset.
    """
    from reflux.components.advice.plan.choice import Choice
    from reflux.components.stages.ingest.source import open_source

    slices, group = params.ingest.slices, params.ingest.group
    if not slices and group is None:
        return open_source(path), None, []
    try:
        kept = list(dict.fromkeys([*slices, group] if group else slices))
        return open_source(path, slices, group), kept.index(group) if group else None, []
    except UserError:
        why = "the columns of another dataset are not in this one"
        none: dict[str, object] = {"ingest.slices": [], "ingest.group": None, "registry.slices.gates": {}}
        return open_source(path), None, [Choice(param, value, why) for param, value in none.items()]


def _looked_at(dataset: "Source", path: Path, group: int | None, params: Params) -> "tuple[Profile, Look]":
    from reflux.components.advice.plan.profile import look_at

    ingest, split = params.ingest, params.ingest.split
    limits = (ingest.max_megapixels, ingest.max_quarantined)
    return look_at(dataset, path, split.val, split.test, *limits, usable_cores(), group)


def _asked(profile: "Profile", look: "Look", wishes: "Wishes", params: Params) -> "Answers":
    """What a probe says of images of train and val; nothing, and why, where the pretrained weights can't be had."""
    # Read when torch is loaded: on a busy machine an image of the probe takes 8 ms of CPU so, and 14 to 23 without.
    os.environ.update({**STAGE_ENVIRONMENT, **os.environ})
    from reflux.components.advice.plan import probe
    from reflux.components.advice.plan.choice import Answers
    from reflux.components.advice.plan.networks import TEACHER, TEACHER_WEIGHTS
    from reflux.components.advice.plan.rules import teacher_candidates

    start, run = params.pretrain, params.run
    teacher = (start.model, start.weights) if wishes.own_teacher else (TEACHER, TEACHER_WEIGHTS)
    try:
        sizes = teacher_candidates(profile)
        return probe.ask(look, profile.classes, sizes, *teacher, run.device, run.threads)
    except UserError as error:
        print(f"Planned without asking validation images: {error}", flush=True)
        return Answers()


def _plan(profile: "Profile", wishes: "Wishes", answers: "Answers") -> "tuple[list[Choice], dict[str, float]]":
    """Choose everything for a dataset, and the seconds that each stage will take.

    Raises:
        UserError: the time is too short, or no network small enough.
    """
    from reflux.components.advice.plan import rules
    from reflux.components.advice.plan.choice import as_assignments
    from reflux.components.advice.plan.pace import Pace
    from reflux.components.advice.plan.times import stage_seconds

    classes, decoding = len(profile.classes), {"decoding": profile.decoding}
    for setup in rules.setups(profile, wishes, answers):
        assignments = as_assignments(rules.structure(profile, wishes, setup, answers))
        sized = check_overrides(assignments)
        pace = Pace.of(sized, profile.counts, measure(assignments, classes) | decoding)
        if rules.affordable(profile, wishes, setup, pace):
            break
    chosen = rules.choices(profile, wishes, setup, answers, pace)
    assignments = as_assignments(chosen)
    speeds = measure(assignments, classes) | decoding
    return chosen, stage_seconds(check_overrides(assignments), profile.counts, speeds)


def _copy(path: Path, target: Path) -> None:
    """Copy a dataset, whole or not at all.

    Raises:
        UserError: a file can't be read, or the disk is full.
    """
    if path.is_file():
        with atomic(target) as temporary:
            shutil.copy2(path, temporary)
        return
    partial = target.with_name(f".{target.name}-partial")
    shutil.rmtree(partial, ignore_errors=True)  # of a copy that was killed
    try:
        shutil.copytree(path, partial, ignore=_links_to_folders)
        partial.rename(target)
    except shutil.Error as error:  # all that went wrong, as lists of source, target and reason
        file, _, why = error.args[0][0]
        why = why.partition("] ")[2].partition(":")[0] or why
        raise UserError(
            f"{file} can't be copied to {target} ({why}): make it readable, or free some space, and run again."
        ) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _links_to_folders(folder: str, names: list[str]) -> list[str]:
    """List the links to folders, which may loop: what they lead to is copied where it is. Broken links go, too."""
    paths = [Path(folder, name) for name in names]
    return [path.name for path in paths if path.is_symlink() and not path.is_file()]


@contextmanager
def _undone_if_it_fails(target: Path, inside: bool) -> Iterator[None]:
    """Leave ``data/`` as it was if the block fails or is interrupted."""
    notes = [target.with_name(f"{target.name}.dvc"), target.with_name(".gitignore")]
    before = [note.read_bytes() if note.is_file() else None for note in notes]
    try:
        yield
    except BaseException:
        if not inside and target.is_file():
            target.unlink()
        elif not inside:
            shutil.rmtree(target, ignore_errors=True)
        for note, content in zip(notes, before, strict=True):
            if content is not None:
                note.write_bytes(content)
            else:
                note.unlink(missing_ok=True)
        raise


@dataclass
class _Kind:
    """The files of one suffix, and what is wrong with the samples of it that can't be read."""

    files: int = 0
    opened: int = 0
    refused: list[str] = field(default_factory=list)


def _unreadable_kinds(path: Path, source: "Source", max_quarantined: float) -> list[str]:
    """Open samples of each kind of file.

    Returns:
        A sentence for each kind, so rare that ``ingest`` would go on, that can't be read.

    Raises:
        UserError: files of a kind can't be read, and ``ingest`` would refuse so many.
    """
    from reflux.components.modalities.image.files import read_image
    from reflux.components.modalities.image.pixels import UnreadableImage, decode

    kinds: dict[str, _Kind] = {}
    for number, item in enumerate(source.items):
        if isinstance(item.data, bytes) and number >= _IMAGES_CHECKED:
            break  # further rows are of the same kind, and reading them takes as long as ingesting them
        kind = kinds.setdefault(Path(item.path.partition("#")[0]).suffix.lower(), _Kind())
        kind.files += 1
        if kind.opened >= _SAMPLES:
            continue
        kind.opened += 1
        try:
            data = item.data if isinstance(item.data, bytes) else read_image(item.data, 50)
            decode(data, 3, 64, 50)
        except (UnreadableImage, OSError) as error:
            why = error if isinstance(error, UnreadableImage) else f"can't be read ({error.strerror})"
            kind.refused.append(f"{item.path} {why}")
    doubts = []
    for suffix, kind in kinds.items():
        if len(kind.refused) < kind.opened:
            continue
        which = f"{suffix} files" if suffix else "files without an extension"
        sentence = f"{path} has {which} that can't be read ({kind.files:,}): {kind.refused[0]}"
        if kind.files > max_quarantined * source.count:
            raise UserError(f"{sentence}; convert them, or take them out.")
        doubts.append(sentence)
    return doubts


def _slug(name: str) -> str:
    slug = re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-")
    if not slug:
        raise UserError(f"{name!r} can't name a dataset: choose a name of letters and digits with `--name`.")
    return slug
