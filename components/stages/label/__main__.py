"""``python -m reflux.components.stages.label``: store the teacher's soft labels."""

import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor

from reflux.components.core.artifacts import write_json
from reflux.components.core.data.draws import Uint64s, views_key
from reflux.components.core.data.shards import Shard, join, open_shard, read_dataset
from reflux.components.core.errors import UserError
from reflux.components.core.params.distill import targets_from
from reflux.components.core.precision import computing
from reflux.components.core.runtime import lineage, progress
from reflux.components.core.runtime.device import resolve_device
from reflux.components.core.runtime.stage import Stage, run
from reflux.components.core.teacher.ensemble import load_teacher
from reflux.components.core.teacher.soft_labels import Format, Indices, SoftLabels, format_for
from reflux.components.modalities.image.views.mixing import Views, mixing_of, own_ids, stored_augment
from reflux.components.stages.label.soft_labels import prove, teacher_logits
from reflux.components.stages.label.store import FilledStore, fill, publish, publish_empty, remove_others, share_of_disk

_MUCH = 0.5  # of the free disk


def main(stage: Stage) -> None:
    """Store the soft labels of every view of the training images, labeled or not, if distillation reads a store."""
    params = stage.params
    device = resolve_device(params.run.device, params.run.threads, params.run.deterministic)
    stage.environment |= computing(device)
    teacher_path = stage.read("finetune/model.safetensors")
    dataset = read_dataset(stage.read("ingest/images.json"))
    train, unlabeled = (
        open_shard(stage.read(f"ingest/shards/{split}"), params.run.workers) for split in ("train", "unlabeled")
    )
    images = join(train, unlabeled)
    if not len(images):
        raise UserError("There is no image to label: the dataset needs training or unlabeled images.")
    views = params.views_of_each(len(images))
    if stage.world.first:
        if params.label.views == "auto":
            _note(f"label.views = auto: {views:,} of each image, as often as the student visits it")
        stage.journal.params({"views_of_each_image": views})
    if targets_from(params.distill) != "store":
        if stage.world.first:
            publish_empty(images.ids, stage.out("store"))
            write_json(stage.out("manifest.json"), {"views": views, "images": len(images), "shards": []})
        return
    others, weighting = params.distill.teachers, params.distill.ensemble
    teacher, teacher_sha256 = load_teacher(teacher_path, others, weighting, dataset.classes, device)
    augment = stored_augment(params.student.augment.model_dump(), params.distill.mixed_targets)
    logits_of = partial(teacher_logits, teacher=teacher, views=Views(images, params.seed, augment), device=device)
    _label(stage, dataset.classes, images, views, teacher_sha256, augment, logits_of)


def _label(
    stage: Stage,
    classes: tuple[str, ...],
    images: Shard,
    views: int,
    teacher_sha256: str,
    augment: dict[str, Any],
    logits_of: Callable[[Indices, Indices], Tensor],
) -> None:
    label, seed = stage.params.label, stage.params.seed
    format = format_for(len(classes), label.top_k)
    decided_by = {
        "teacher": teacher_sha256,
        "augmentation": augment,
        "seed": seed,
        "format": [format.classes, format.top_k],
        "environment": stage.environment,
        "code": lineage.code_sha256("stages.label"),
    }
    filled = _fill(stage, decided_by, images, views, format, augment, logits_of)
    if not stage.world.first:
        return
    proof = prove(SoftLabels(filled.folder, len(images), views, format), len(images), label.proof, seed, logits_of)
    publish(filled, stage.out("store"))
    manifest = {
        "key": filled.key,
        "teacher_sha256": teacher_sha256,
        "views_key": views_key(images.ids, seed, augment),
        "views": views,
        "images": len(images),
        "classes": list(classes),
        "format": "top-k" if format.top_k else "dense",
        "top_k": format.top_k,
        "proof": proof,
        "shards": filled.shards,
    }
    write_json(stage.out("manifest.json"), manifest)
    remove_others(filled)
    stage.journal.metrics({f"proof/{name}": value for name, value in proof.items()})


def _fill(
    stage: Stage,
    decided_by: dict[str, Any],
    images: Shard,
    views: int,
    format: Format,
    augment: dict[str, Any],
    logits_of: Callable[[Indices, Indices], Tensor],
) -> FilledStore:
    """Compute the soft labels that are not stored yet, and say how many they are."""
    label, seed, first = stage.params.label, stage.params.seed, stage.world.first

    def partners_of(ids: Uint64s) -> Callable[[Uint64s, int], Uint64s]:
        mixing = mixing_of(images, ids, seed, augment)
        return mixing.partner_ids if mixing else own_ids

    if first:
        _warn_of_disk(len(images), views, format.dtype.itemsize)
    began = time.monotonic()
    with progress.bar("label", "soft labels", views * len(images)) as bar:
        filled = fill(
            decided_by,
            images.ids,
            views,
            format,
            label.batch_size,
            logits_of,
            bar.advance,
            partners_of,
            world=stage.world,
        )
    if first:
        why = f", because of another {' and another '.join(filled.changed)}" if filled.changed else ""
        _note(f"soft labels: {filled.computed:,} computed, {filled.reused:,} reused{why}")
        stage.journal.metrics({"computed": filled.computed, "reused": filled.reused})
        if filled.computed:
            stage.journal.metrics({"images_per_s": filled.computed / (time.monotonic() - began)})
    return filled


def _warn_of_disk(images: int, views: int, itemsize: int) -> None:
    share = share_of_disk(images * views * itemsize)
    if share > _MUCH:
        _note(
            f"{views:,} views of {images:,} images take {100 * share:.0f} % of the free disk: lower label.views, or "
            "set distill.teacher to live, which stores nothing"
        )


def _note(text: str) -> None:
    sys.stdout.write(f"Note: {text}\n")


if __name__ == "__main__":
    run("label", main)
