"""``python -m components.evaluate``: the figures, pictures and model card of the files that ship."""

import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from components.core.artifacts import atomic, read_json, sha256_file, write_json
from components.core.contract import SHIPPED, STAGES
from components.core.errors import UserError
from components.core.export import onnx_file, program
from components.core.export.latency import latency
from components.core.export.onnx_file import Logits
from components.core.images.shards import Pixels, Shard, open_shard
from components.core.models import pixel_model
from components.core.models.pixel_model import PixelModel
from components.core.runtime import progress, stage
from components.core.runtime.device import resolve_device
from components.core.significance import mcnemar, paired_bootstrap
from components.evaluate import card, describe, metrics, pictures, probe, scoring, slices

_LATENCY_IMAGES = 32
_LISTED_MISTAKES = 10


@dataclass(frozen=True)
class Contenders:
    """The models and files that are measured, with where they came from."""

    teacher: PixelModel
    student: PixelModel
    control: PixelModel
    weights: Mapping[str, Path]
    files: Mapping[str, Path]


def main(this: stage.Stage) -> None:
    """Score everyone on the test split, write what came of it, and tell MLflow."""
    facts = read_json(this.read("ingest/dataset.json"))
    test = open_shard(this.read("ingest/shards/test"), this.params.run.workers)
    if not len(test):
        raise UserError("The test split holds no images, so no model can be judged: give ingest a test split.")
    columns = slices.read(this.read("ingest/manifest.parquet"), len(test))
    found = _contenders(this, facts["classes"])
    with tempfile.TemporaryDirectory() as folder:
        translated = _translated(this, found, test, Path(folder))
        answers = _answers(this, found, test, translated)
        corrupted = _corrupted(this, found, test, translated)
        if not this.world.first:
            return  # the figures are the first one's to make
        for kind in ("pt2", "onnx"):
            scoring.require_same_predictions(answers["student"], answers[kind], found.files[kind])
        timed = _latencies(this, found, test, translated)
    more = {name: timed.get(name, {}) | corrupted.get(name, {}) for name in answers}
    measured = _metrics(this, facts, found, test, columns, answers, more)
    _write(this, facts, found, test, answers, measured)
    _record(this, facts, measured)


def _contenders(this: stage.Stage, classes: list[str]) -> Contenders:
    weights = {
        "teacher": this.read("finetune/model.safetensors"),
        "student": this.read("distill/model.safetensors"),
        "control": this.read("control/model.safetensors"),
    }
    loaded = {name: pixel_model.load(path) for name, path in weights.items()}
    for name, model in loaded.items():
        pixel_model.check_classes(model, classes, weights[name])
    files = {kind: this.read(f"compress/{name}") for kind, name in SHIPPED.items()}
    return Contenders(**loaded, weights=weights, files=files)


def _translated(this: stage.Stage, found: Contenders, test: Shard, folder: Path) -> dict[str, Path]:
    """Teacher and control as ONNX files, for onnxruntime to time them as it times the student."""
    height, width, channels = test.images.shape[1:]
    exports = {
        "control": partial(program.export, found.control),
        # A teacher is large: with a free batch size its translation takes twice as long.
        "teacher": partial(program.export, found.teacher, batch=1, shape=(channels, height, width)),
    }
    files = {}
    with progress.bar(this.name, "translating", len(exports), unit="models") as bar:
        for name, export in exports.items():
            try:
                onnx.save(program.to_onnx(export()), folder / f"{name}.onnx")
                files[name] = folder / f"{name}.onnx"
            except torch.onnx.OnnxExporterError as error:
                # Some networks of timm have no translation; a teacher is not the worse for it.
                this.journal.tags({f"{name}.latency": f"not measured: {str(error).splitlines()[0][:200]}"})
            bar.advance(1)
    return files


def _answers(this: stage.Stage, found: Contenders, test: Shard, translated: Mapping[str, Path]) -> dict[str, Logits]:
    run = this.params.run
    device = resolve_device(run.device, run.threads, run.deterministic)
    if device.type == "cpu" and "teacher" in translated:
        teacher = scoring.one_by_one(translated["teacher"], torch.get_num_threads())
    else:
        teacher = scoring.on_device(found.teacher, device)
    with progress.bar(this.name, "test images", (3 + len(found.files)) * len(test)) as bar:
        return scoring.answers(test.images, teacher, found.student, found.control, found.files, bar.advance, this.world)


def _corrupted(
    this: stage.Stage, found: Contenders, test: Shard, translated: Mapping[str, Path]
) -> dict[str, dict[str, float]]:
    runs: dict[str, Callable[[Pixels], Logits]] = {"onnx": program.reload(found.files["onnx"])}
    # Torch's threads cost several times as much where other processes work beside them.
    control = translated.get("control")
    runs["control"] = program.reload(control) if control else partial(program.forward, found.control)
    with progress.bar(this.name, "corrupted images", len(test)) as bar:
        return scoring.corrupted_accuracies(test, runs, found.student.spec, bar.advance, this.world)


def _metrics(
    this: stage.Stage,
    facts: Mapping[str, Any],
    found: Contenders,
    test: Shard,
    columns: Mapping[str, list[str]],
    answers: Mapping[str, Logits],
    more: Mapping[str, dict[str, float]],
) -> dict[str, Any]:
    sizes = {**found.weights, **found.files}
    measured: dict[str, Any] = {}
    for name, logits in answers.items():
        source = {"teacher": found.teacher, "control": found.control}.get(name, found.student)
        measured[name] = metrics.measure(logits, test.labels)
        measured[name] |= {"params": pixel_model.parameter_count(source), "size_bytes": sizes[name].stat().st_size}
        measured[name] |= more[name]
    right, control = _correct(answers["onnx"], test), _correct(answers["control"], test)
    gain = paired_bootstrap(right, control, this.params.evaluate.bootstrap, this.params.seed)
    return {
        "test": {"fingerprint": facts["fingerprints"]["test"], "n": len(test)},
        **{name: measured[name] for name in ("teacher", "student", "control")},
        "shipped": {kind: measured[kind] for kind in SHIPPED},
        "gain": {
            "accuracy": gain.difference,
            "ci95": [gain.low, gain.high],
            "p_value": mcnemar(right, control),
        },
        "slices": slices.measure(facts["classes"], test.labels, columns, right),
        "classes": facts["classes"],
        "dataset": {"name": facts["name"], "fingerprints": facts["fingerprints"]},
        "artifact_sha256": {kind: sha256_file(path) for kind, path in found.files.items()},
    }


def _latencies(
    this: stage.Stage, found: Contenders, test: Shard, translated: Mapping[str, Path]
) -> dict[str, dict[str, float]]:
    """Of everything that onnxruntime can run, one after the other, with nothing else at work here."""
    runs, images = this.params.evaluate.latency_runs, np.array(test.images[:_LATENCY_IMAGES])
    spec = found.student.spec
    student = onnx_file.fit(images, spec.image_size, spec.in_chans)
    stored = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    files = {"onnx": found.files["onnx"], "onnx_int8": found.files["onnx_int8"], **translated}
    return {name: latency(path, stored if name == "teacher" else student, runs) for name, path in files.items()}


def _correct(logits: Logits, test: Shard) -> npt.NDArray[np.bool_]:
    right: npt.NDArray[np.bool_] = logits.argmax(axis=1) == test.labels
    return right


def _write(
    this: stage.Stage,
    facts: Mapping[str, Any],
    found: Contenders,
    test: Shard,
    answers: Mapping[str, Logits],
    measured: Mapping[str, Any],
) -> None:
    _write_predictions(this.out("predictions.parquet"), test, answers)
    shown = probe.choose(test.labels, answers["onnx"])
    spec, asked = found.student.spec, this.out("probe.npz")
    pixels = onnx_file.fit_rows(test.images, shown, spec.image_size, spec.in_chans)
    probe.write(asked, pixels, answers["onnx"][shown])
    folder = this.out("figures")
    stages = {spec.role: name for name, spec in STAGES.items() if spec.role}
    histories = {name: pictures.history(this.read(f"{made_by}/history.parquet")) for name, made_by in stages.items()}
    building = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".figures-"))
    try:
        pictures.draw(building, histories, facts["classes"], test, answers, measured, found.student.spec.image_size)
        shutil.rmtree(folder, ignore_errors=True)
        building.chmod(0o755)
        building.rename(folder)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    right = {name: _correct(logits, test) for name, logits in answers.items()}
    gap = paired_bootstrap(right["onnx"], right["teacher"], this.params.evaluate.bootstrap, this.params.seed)
    told = describe.results_facts(measured, answers, test.labels, right, gap)
    told |= describe.origin_facts(facts, this.params.model_dump(by_alias=True), found.student.spec, found.teacher.spec)
    told |= {
        "files": SHIPPED,
        "corruptions": describe.corruptions(measured, found.student.spec.image_size),
        "parity": read_json(this.read("compress/parity.json")),
        "mistakes": _mistakes(this, facts["classes"], test, answers["onnx"]),
        "hashes": {f"{name}'s weights, sha256": sha256_file(path) for name, path in found.weights.items()},
    }
    text = card.markdown(told)
    html = card.page(text, this.params.registry.model_name, describe.tiles(measured, gap), folder.parent)
    for name, content in (("model-card.md", text), ("model-card.html", html)):
        with atomic(this.out(name)) as temporary:
            temporary.write_text(content, encoding="utf-8")
    # Last, because its presence says that the evaluation is whole.
    write_json(this.out("metrics.json"), {**measured, "probe_sha256": sha256_file(asked)})


def _write_predictions(path: Path, test: Shard, answers: Mapping[str, Logits]) -> None:
    names = ("teacher", "student", "control", "onnx", "onnx_int8")
    columns: dict[str, Any] = {"id": test.ids, "label": test.labels}
    columns |= {name: answers[name].argmax(axis=1) for name in names}
    columns["onnx_confidence"] = metrics.confidences(answers["onnx"])
    with atomic(path) as temporary:
        pq.write_table(pa.table(columns), temporary)


def _mistakes(this: stage.Stage, classes: list[str], test: Shard, logits: Logits) -> list[dict[str, Any]]:
    """The most confident mistakes with their files, so that a person can look whether the label is wrong."""
    manifest = pq.read_table(
        this.read("ingest/manifest.parquet"), columns=["path", "row"], filters=[("split", "=", "test")]
    )
    paths = dict(zip(manifest["row"].to_pylist(), manifest["path"].to_pylist(), strict=True))
    confidence = metrics.confidences(logits)
    return [
        {
            "path": paths[int(row)],
            "true": classes[test.labels[row]],
            "predicted": classes[logits[row].argmax()],
            "confidence": float(confidence[row]),
        }
        for row in metrics.worst_mistakes(logits, test.labels, _LISTED_MISTAKES)
    ]


def _record(this: stage.Stage, facts: Mapping[str, Any], measured: Mapping[str, Any]) -> None:
    models_measured = {name: measured[name] for name in ("teacher", "student", "control")} | measured["shipped"]
    values = {
        f"test/{model}_{name}": value for model, found in models_measured.items() for name, value in found.items()
    }
    low, high = measured["gain"]["ci95"]
    values |= {"gain/accuracy": measured["gain"]["accuracy"], "gain/p_value": measured["gain"]["p_value"]}
    this.journal.metrics(values | {"gain/ci95_low": low, "gain/ci95_high": high})
    fingerprint = facts["fingerprints"]["test"]
    this.journal.dataset(f"{facts['name']}/test", fingerprint, facts["source"], "test")
    this.journal.tags({"test_fingerprint": fingerprint})
    for name in ("metrics.json", "predictions.parquet", "figures", "model-card.md", "model-card.html"):
        this.journal.artifact(this.out(name))


if __name__ == "__main__":
    stage.run("evaluate", main)
