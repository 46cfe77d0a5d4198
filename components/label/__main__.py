"""``python -m components.label``: stores the teacher's soft labels."""

from components.core import progress, stage
from components.core.artifacts import sha256_file, write_json
from components.core.device import pick
from components.core.errors import UserError
from components.core.models import check_classes, load
from components.core.shards import join, open_shard, read_dataset
from components.core.views import views_key
from components.label.soft_labels import prove, write_soft_labels


def main(this: stage.Stage) -> None:
    """Label every view of the labelled and unlabelled training images."""
    params, label = this.params, this.params.label
    device = pick(params.run.device, params.run.threads, params.run.deterministic)
    teacher_path = this.read("finetune/model.safetensors")
    teacher = load(teacher_path).to(device)
    dataset = read_dataset(this.read("ingest/dataset.json"))
    check_classes(teacher, dataset.classes, teacher_path)
    workers = params.run.workers
    images = join(*(open_shard(this.read(f"ingest/shards/{split}"), workers) for split in ("train", "unlabeled")))
    if not len(images):
        raise UserError("There is no image to label: artifacts/ingest/shards/train is empty.")
    augment = params.student.augment.model_dump()
    logits = this.out("logits.npy")
    with progress.bar("label", "soft labels", label.views * len(images)) as bar:
        write_soft_labels(
            logits, teacher, images, label.views, label.batch_size, params.seed, augment, device, bar.advance
        )
    this.journal.metrics({"images_per_s": bar.rate})
    proof = prove(logits, teacher, images, label.proof, params.seed, augment, device)
    manifest = {
        "teacher_sha256": sha256_file(teacher_path),
        "views_key": views_key(images.ids, params.seed, augment),
        "views": label.views,
        "images": len(images),
        "classes": list(teacher.spec.classes),
        "sha256": sha256_file(logits),
        "proof": proof,
    }
    write_json(this.out("manifest.json"), manifest)
    this.journal.metrics({f"proof/{name}": value for name, value in proof.items()})


if __name__ == "__main__":
    stage.run("label", main)
