"""What students learn from: a teacher and its images, of which all or few have labels."""

import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness.checkout import copy_checkout
from benchmarks.harness.images import part, read_split
from benchmarks.methods.training import hard, train, untrained, views_of
from reflux.components.core.data.shards import Shard, join, open_shard
from reflux.components.core.training.loop import Objective
from reflux.components.modalities.image.models.pixel_model import PixelModel, load, save

TEACHER = "resnet20"
LABELED, VALIDATION = 10_000, 5000


@dataclass(frozen=True)
class Task:
    """What the students of a seed learn from.

    Attributes:
        images: to learn from, labeled or not.
        val: to choose the weights by.
        test: looked at once.
        teacher: trained.
        views: of each image.
        control: the images of the control.
        control_views: their views; None is a new one at each visit.
    """

    images: Shard
    val: Shard
    test: Shard
    teacher: PixelModel
    views: int
    control: Shard
    control_views: int | None


def many_labels(data: Path, steps: int, kept: Path) -> Task:
    """The task of which all images have labels; the teacher is trained once on labels alone and kept in a file."""
    everything, test = read_split(data, "train"), read_split(data, "test")
    held_out = min(VALIDATION, len(everything) // 5)
    images, val = part(everything, slice(held_out, held_out + LABELED)), part(everything, slice(held_out))
    file = kept / "teacher.safetensors"
    if not file.is_file():
        teacher = untrained(TEACHER, 100)
        train(teacher, views_of(images, None, 100), Objective(hard), val, steps)
        save(teacher, file)
    return Task(images, val, test, load(file), views=1, control=images, control_views=1)


def few_labels(kept: Path) -> Task:
    """The task of the project's sample; the teacher is fine-tuned by the pipeline's stages and kept."""
    kept = kept / "artifacts"
    if not kept.is_dir():
        with tempfile.TemporaryDirectory() as folder:
            checkout = copy_checkout(Path(folder))
            for stage in ("ingest", "pretrain", "finetune"):
                subprocess.run([sys.executable, "-m", f"reflux.components.stages.{stage}"], cwd=checkout, check=True)
            shutil.copytree(checkout / "artifacts", kept)
    labeled, unlabeled, val, test = (
        open_shard(kept / "ingest/shards" / split, 0) for split in ("train", "unlabeled", "val", "test")
    )
    teacher = load(kept / "finetune/model.safetensors")
    return Task(join(labeled, unlabeled), val, test, teacher, views=1, control=labeled, control_views=None)
