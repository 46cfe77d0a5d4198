"""``python -m reflux.components.stages.evaluate``: the figures, pictures and model card of the files that ship."""

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

from reflux.components.core.artifacts import atomic, read_json, sha256_file, write_json
from reflux.components.core.contract import FILES, STAGES
from reflux.components.core.data.shards import Pixels, Shard, open_other, open_shard
from reflux.components.core.errors import UserError
from reflux.components.core.export import program
from reflux.components.core.export.latency import latency, side_by_side
from reflux.components.core.export.logits import Logits
from reflux.components.core.export.network import fit_rows, load
from reflux.components.core.precision import computing
from reflux.components.core.runtime import progress
from reflux.components.core.runtime.device import resolve_device
from reflux.components.core.runtime.stage import Stage, run
from reflux.components.core.significance import mcnemar, paired_bootstrap
from reflux.components.modalities.image.models import pixel_model
from reflux.components.modalities.image.models.pixel_model import PixelModel
from reflux.components.modalities.image.preprocess import fit
from reflux.components.stages.evaluate import advice, metrics, pictures, probe, scoring, slices, trained_on
from reflux.components.stages.evaluate.card import describe, render
from reflux.components.stages.evaluate.card.front_matter import front_matter

_LATENCY_IMAGES = 32
_LISTED_MISTAKES = 10
_LISTED_CONFUSIONS = 3


@dataclass(frozen=True)
class Contenders:
    """The models and files that are measured, the files that they were read from, and which of them ships.

    Attributes:
        student: what the files were made from: the distilled student, or its control where that ships.
        distilled: the student that does not ship, if it is the control that does.
    """

    teacher: PixelModel
    student: PixelModel
    control: PixelModel
    weights: Mapping[str, Path]
    files: Mapping[str, Path]
    ships: Mapping[str, str]
    distilled: PixelModel | None = None

    @property
    def shipped(self) -> str:
        """The kind of the file that ships."""
        return self.ships["kind"]


def main(stage: Stage) -> None:
    """Score models and shipped files on the test split, write the results, and log them.

    Raises:
        UserError: the test split is empty.
    """
    dataset = read_json(stage.read("ingest/dataset.json"))
    test = open_shard(stage.read("ingest/shards/test"), stage.params.run.workers)
    if not len(test):
        raise UserError(
            "The test split holds no images, so no model can be judged: set ingest.split.test above 0, or add a folder "
            "or file named test."
        )
    columns = slices.read(stage.read("ingest/manifest.parquet"), len(test))
    contenders = _load(stage, dataset["classes"])
    with tempfile.TemporaryDirectory() as folder:
        onnx_files = _translate(stage, contenders, test, Path(folder))
        logits = _predict(stage, contenders, test, onnx_files)
        corrupted = _corrupted(stage, contenders, test, onnx_files)
        if not stage.world.first:
            return  # the first process alone writes the results
        for kind, path in contenders.files.items():
            if FILES[kind].precision == "fp32":
                scoring.require_same_predictions(logits["student"], logits[kind], path)
        latencies = _latencies(stage, contenders, test, onnx_files)
    extra = {name: latencies.get(name, {}) | corrupted.get(name, {}) for name in logits}
    results = _measure(stage, dataset, contenders, test, columns, logits, extra)
    if slower := _times_slower(contenders, test):
        results["ships"]["slower"] = slower
    if on_source := _on_source_domain(stage, contenders):
        results["source_domain"] = on_source
    _write(stage, dataset, contenders, test, logits, results)
    _record(stage, dataset, results)


def _load(stage: Stage, classes: list[str]) -> Contenders:
    distilled, control = (stage.read(f"{name}/model.safetensors") for name in ("distill", "control"))
    weights = {"teacher": stage.read("finetune/model.safetensors"), "student": distilled, "control": control}
    candidate = read_json(stage.read("compress/candidate.json"))
    if candidate["trained"] == "labels":
        weights |= {"student": control, "distilled": distilled}
    loaded = {name: pixel_model.load(path) for name, path in weights.items()}
    for name, model in loaded.items():
        pixel_model.check_classes(model, classes, weights[name])
    made = read_json(stage.read("compress/parity.json"))
    files = {kind: stage.read(f"compress/{FILES[kind].name}") for kind in made}
    ships = read_json(stage.read("compress/ships.json"))
    return Contenders(**loaded, weights=weights, files=files, ships=ships)


def _translate(stage: Stage, contenders: Contenders, test: Shard, folder: Path) -> dict[str, Path]:
    """Export teacher and control to ONNX, so that they are timed in onnxruntime like the student."""
    height, width, channels = test.images.shape[1:]
    exports = {
        "control": partial(program.export, contenders.control),
        # A teacher is large: with a free batch size its translation takes twice as long.
        "teacher": partial(program.export, contenders.teacher, batch=1, shape=(channels, height, width)),
    }
    files = {}
    with progress.bar(stage.name, "exporting", len(exports), unit="models") as bar:
        for name, export in exports.items():
            try:
                onnx.save(program.to_onnx(export()), folder / f"{name}.onnx")
                files[name] = folder / f"{name}.onnx"
            except torch.onnx.OnnxExporterError as error:
                # Some of timm's networks can't be exported; a teacher need not be.
                stage.journal.tags({f"{name}.latency": f"not measured: {str(error).splitlines()[0][:200]}"})
            bar.advance(1)
    return files


def _predict(stage: Stage, contenders: Contenders, test: Shard, onnx_files: Mapping[str, Path]) -> dict[str, Logits]:
    settings = stage.params.run
    device = resolve_device(settings.device, settings.threads, settings.deterministic)
    stage.environment |= computing(device)
    if device.type == "cpu" and "teacher" in onnx_files:
        teacher = scoring.one_by_one(onnx_files["teacher"], torch.get_num_threads())
    else:
        teacher = scoring.on_device(contenders.teacher, device)
    models = {"student": contenders.student, "control": contenders.control}
    if contenders.distilled is not None:
        models = {"distilled": contenders.distilled, "control": contenders.control}
    passes = 1 + len(models) + len(contenders.files)
    with progress.bar(stage.name, "test images", passes * len(test)) as bar:
        logits = scoring.predict_all(test.images, teacher, models, contenders.files, bar.advance, stage.world)
    return logits if "student" in logits else logits | {"student": logits["control"]}


def _corrupted(
    stage: Stage, contenders: Contenders, test: Shard, onnx_files: Mapping[str, Path]
) -> dict[str, dict[str, float]]:
    ships = contenders.shipped
    runs: dict[str, Callable[[Pixels], Logits]] = {ships: load(contenders.files[ships]).run}
    # Torch's threads are several times as slow where other processes use the cores.
    control = onnx_files.get("control")
    runs["control"] = load(control).run if control else partial(program.forward, contenders.control)
    with progress.bar(stage.name, "corrupted images", len(test)) as bar:
        return scoring.corrupted_accuracies(test, runs, contenders.student.spec, bar.advance, stage.world)


def _measure(
    stage: Stage,
    dataset: Mapping[str, Any],
    contenders: Contenders,
    test: Shard,
    columns: Mapping[str, list[str]],
    logits: Mapping[str, Logits],
    extra: Mapping[str, dict[str, float]],
) -> dict[str, Any]:
    sizes = {**contenders.weights, **contenders.files}
    measured: dict[str, Any] = {}
    for name, own in logits.items():
        source = {"teacher": contenders.teacher, "control": contenders.control}.get(name, contenders.student)
        measured[name] = metrics.measure(own, test.labels)
        measured[name] |= {"params": pixel_model.parameter_count(source), "size_bytes": sizes[name].stat().st_size}
        measured[name] |= extra[name]
    student = logits[contenders.shipped]
    gains = {name: _gain(stage, test, logits, name) for name in ("teacher", "student", "distilled") if name in logits}
    distilled = {"distilled": measured["distilled"] | {"gain": gains["distilled"]}} if "distilled" in logits else {}
    accuracies = {name: measured[name]["accuracy"] for name in ("teacher", "control")}
    accuracies["student"] = measured["distilled" if distilled else contenders.shipped]["accuracy"]
    leads = gains["teacher"]["ci95"][0] > 0
    remedy = {"remedy": advice.remedy(stage.params, dataset["counts"], accuracies, leads)}
    rounds = read_json(stage.read("finetune/rounds.json"))
    return {
        "test": {"fingerprint": dataset["fingerprints"]["test"], "n": len(test)},
        **{name: measured[name] for name in ("teacher", "student", "control")},
        "shipped": {kind: measured[kind] for kind in contenders.files},
        "ships": dict(contenders.ships),
        "candidate": read_json(stage.read("compress/candidate.json")),
        "gain": gains["student"],
        **distilled,
        **({} if gains["student"]["ci95"][0] > 0 else remedy),
        "slices": slices.measure(dataset["classes"], test.labels, columns, _correct(student, test)),
        "confusions": _confusions(dataset["classes"], metrics.confusion(student, test.labels)),
        **({"rounds": rounds} if rounds else {}),
        **({} if dataset["counts"]["train"] else {"control_untrained": True}),
        "classes": dataset["classes"],
        "dataset": {"name": dataset["name"], "fingerprints": dataset["fingerprints"]},
        "artifact_sha256": {kind: sha256_file(path) for kind, path in contenders.files.items()},
    }


def _gain(stage: Stage, test: Shard, logits: Mapping[str, Logits], name: str) -> dict[str, Any]:
    """What a model gains over the control: both as they were trained, so that no file's precision is in it."""
    right, control = _correct(logits[name], test), _correct(logits["control"], test)
    gain = paired_bootstrap(right, control, stage.params.evaluate.bootstrap, stage.params.seed)
    return {
        "accuracy": gain.difference,
        "ci95": [gain.low, gain.high],
        "p_value": mcnemar(right, control),
        "wins": int((right & ~control).sum()),  # images that it alone got right
        "losses": int((control & ~right).sum()),
    }


def _on_source_domain(stage: Stage, contenders: Contenders) -> dict[str, Any] | None:
    """What teacher and student reach on the test split of the source domain; None without a source domain."""
    folder = stage.read("ingest/source-domain")
    test = open_other(folder, "test", stage.params.run.workers)
    if test is None:
        return None
    facts = read_json(folder / "dataset.json")
    accuracies = scoring.accuracies(test, contenders.teacher, contenders.files[contenders.shipped], contenders.student)
    return {"name": facts["name"], "train": facts["counts"]["train"], "n": len(test), "accuracy": accuracies}


def _confusions(classes: list[str], counts: metrics.Ints) -> list[dict[str, Any]]:
    """The likeliest confusions by the names of their classes: ``n`` ``of`` the true class's images."""
    return [
        {
            "true": classes[true],
            "predicted": classes[predicted],
            "n": int(counts[true, predicted]),
            "of": int(counts[true].sum()),
        }
        for true, predicted in metrics.confused(counts, _LISTED_CONFUSIONS)
    ]


def _latencies(
    stage: Stage, contenders: Contenders, test: Shard, onnx_files: Mapping[str, Path]
) -> dict[str, dict[str, float]]:
    """Time every file but torch's, one after the other, while this process does nothing else."""
    runs, images = stage.params.evaluate.latency_runs, np.array(test.images[:_LATENCY_IMAGES])
    spec = contenders.student.spec
    student = fit(images, spec.image_size, spec.in_chans)
    stored = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    files = {kind: path for kind, path in contenders.files.items() if kind != "pt2"} | dict(onnx_files)
    return {name: latency(path, stored if name == "teacher" else student, runs) for name, path in files.items()}


def _times_slower(contenders: Contenders, test: Shard) -> float | None:
    """How many times as long as the fp32 ONNX file the file that ships takes at least, if it surely is slower."""
    if contenders.shipped == "onnx":
        return None
    spec = contenders.student.spec
    pixels = fit(np.array(test.images[:_LATENCY_IMAGES]), spec.image_size, spec.in_chans)
    times = side_by_side(contenders.files["onnx"], contenders.files[contenders.shipped], pixels, pixels).faster
    return times if times > 1 else None


def _correct(logits: Logits, test: Shard) -> npt.NDArray[np.bool_]:
    right: npt.NDArray[np.bool_] = logits.argmax(axis=1) == test.labels
    return right


def _write(
    stage: Stage,
    dataset: Mapping[str, Any],
    contenders: Contenders,
    test: Shard,
    logits: Mapping[str, Logits],
    results: Mapping[str, Any],
) -> None:
    student = logits[contenders.shipped]
    _write_predictions(stage.out("predictions.parquet"), test, logits, student)
    spec, probe_file = contenders.student.spec, stage.out("probe.npz")
    if stage.params.evaluate.probe == "test":
        rows = probe.choose(test.labels, student)
        probe.write(probe_file, fit_rows(test.images, rows, spec.image_size, spec.in_chans), student[rows])
    else:
        run_file = load(contenders.files[contenders.shipped]).run
        probe.write(probe_file, *probe.of_patterns(run_file, spec.in_chans, spec.image_size))
    ids_file = stage.out("trained-on.npy")
    learned = {"source-domain": ("train",), "pretrain-source": ("train", "val")}
    others = [open_other(stage.read(f"ingest/{name}"), split) for name, splits in learned.items() for split in splits]
    trained_on.write(stage.read("ingest/manifest.parquet"), ids_file, filter(None, others))
    folder = stage.out("figures")
    trained_by = {each.role: name for name, each in STAGES.items() if each.role}
    histories = {role: pictures.history(stage.read(f"{name}/history.parquet")) for role, name in trained_by.items()}
    histories = {role: rows for role, rows in histories.items() if len(rows["images"])}  # none if it came trained
    building = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".figures-"))
    try:
        pictures.draw(building, histories, dataset["classes"], test, logits, results, spec.image_size)
        shutil.rmtree(folder, ignore_errors=True)
        building.chmod(0o755)
        building.rename(folder)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    right = {name: _correct(own, test) for name, own in logits.items()}
    gap = paired_bootstrap(
        right[contenders.shipped], right["teacher"], stage.params.evaluate.bootstrap, stage.params.seed
    )
    facts = describe.results_facts(results, logits, test.labels, right, gap)
    facts |= describe.origin_facts(dataset, stage.params, spec, contenders.teacher.spec)
    facts |= {
        "files": {kind: FILES[kind].name for kind in contenders.files},
        "ships": results["ships"],
        "corruptions": describe.corruptions(results, spec.image_size),
        "parity": read_json(stage.read("compress/parity.json")),
        "mistakes": _mistakes(stage, dataset["classes"], test, student),
        "hashes": {f"{name}'s weights, sha256": sha256_file(path) for name, path in contenders.weights.items()},
    }
    text = render.markdown(facts)
    model_name = stage.params.registry.model_name
    html = render.page(text, model_name, describe.tiles(results, gap), folder.parent)
    head = front_matter(model_name, stage.params.evaluate.license, facts["data_md5"], results)
    for name, content in (("model-card.md", head + text), ("model-card.html", html)):
        with atomic(stage.out(name)) as temporary:
            temporary.write_text(content, encoding="utf-8")
    # Last: it marks the evaluation as complete.
    kept = {"probe_sha256": sha256_file(probe_file), "trained_on_sha256": sha256_file(ids_file)}
    write_json(stage.out("metrics.json"), {**results, **kept})


def _write_predictions(path: Path, test: Shard, logits: Mapping[str, Logits], student: Logits) -> None:
    columns: dict[str, Any] = {"id": test.ids, "label": test.labels}
    columns |= {name: own.argmax(axis=1) for name, own in logits.items() if name != "pt2"}
    columns |= {"shipped": student.argmax(axis=1), "shipped_confidence": metrics.confidences(student)}
    with atomic(path) as temporary:
        pq.write_table(pa.table(columns), temporary)


def _mistakes(stage: Stage, classes: list[str], test: Shard, logits: Logits) -> list[dict[str, Any]]:
    """The most confident mistakes with their files, for people to check whether the label is wrong."""
    path = stage.read("ingest/manifest.parquet")
    manifest = pq.read_table(path, columns=["path", "row"], filters=[("split", "=", "test")])
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


def _record(stage: Stage, dataset: Mapping[str, Any], results: Mapping[str, Any]) -> None:
    by_model = {name: results[name] for name in ("teacher", "student", "control")} | results["shipped"]
    values = {f"test/{model}_{name}": value for model, own in by_model.items() for name, value in own.items()}
    low, high = results["gain"]["ci95"]
    on_source = results.get("source_domain", {}).get("accuracy", {})
    values |= {f"source_domain/{model}_accuracy": value for model, value in on_source.items()}
    values |= {"gain/accuracy": results["gain"]["accuracy"], "gain/p_value": results["gain"]["p_value"]}
    stage.journal.metrics(values | {"gain/ci95_low": low, "gain/ci95_high": high})
    fingerprint = dataset["fingerprints"]["test"]
    stage.journal.dataset(f"{dataset['name']}/test", fingerprint, dataset["source"], "test")
    stage.journal.tags({"test_fingerprint": fingerprint})
    for name in ("metrics.json", "predictions.parquet", "figures", "model-card.md", "model-card.html"):
        stage.journal.artifact(stage.out(name))


if __name__ == "__main__":
    run("evaluate", main)
