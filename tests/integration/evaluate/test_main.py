"""From shipped files to figures and model card."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from components.core.artifacts import sha256_file
from components.core.errors import UserError
from components.core.export import onnx_file, program
from components.core.images.pixels import resize_pixels
from components.core.images.shards import open_shard
from components.core.models import pixel_model
from components.evaluate import corruptions
from components.evaluate.__main__ import main as evaluate
from tests.trained import CLASSES, SEEN, run_here

pytestmark = pytest.mark.slow

FIGURES = {"accuracy", "macro_f1", "worst_class_recall", "ece", "nll", "params", "size_bytes"}
LATENCIES = {"latency_ms_p50", "latency_ms_p95"}
CORRUPTED = {f"{kind}_accuracy" for kind in ("noise", "blur", "brightness", "jpeg", "corrupted")}


def metrics_of(folder: Path):
    return json.loads((folder / "artifacts/evaluate/metrics.json").read_text())


def logged(folder: Path, stage: str):
    starts = (path.read_text().splitlines() for path in (folder / ".reflux/outbox").glob("*/journal.jsonl"))
    return next(lines for lines in ([json.loads(line) for line in s] for s in starts) if lines[0]["name"] == stage)


def test_metrics_keep_their_contract(finished):
    metrics = metrics_of(finished)
    assert list(metrics) == [
        *(
            "test",
            "teacher",
            "student",
            "control",
            "shipped",
            "gain",
            "slices",
            "classes",
            "dataset",
            "artifact_sha256",
            "probe_sha256",
        ),
    ]
    assert metrics["test"] == {"fingerprint": "t" * 64, "n": 257}
    assert metrics["classes"] == CLASSES
    assert metrics["dataset"]["name"] == "grays"
    assert set(metrics["teacher"]) == set(metrics["shipped"]["onnx_int8"]) == FIGURES | LATENCIES
    assert set(metrics["student"]) == set(metrics["shipped"]["pt2"]) == FIGURES
    assert set(metrics["shipped"]["onnx"]) == set(metrics["control"]) == FIGURES | LATENCIES | CORRUPTED
    assert set(metrics["gain"]) == {"accuracy", "ci95", "p_value"}
    files = finished / "artifacts/compress"
    assert metrics["artifact_sha256"]["onnx"] == sha256_file(files / "student.onnx")
    assert metrics["probe_sha256"] == sha256_file(finished / "artifacts/evaluate/probe.npz")
    assert metrics["shipped"]["onnx"]["size_bytes"] == (files / "student.onnx").stat().st_size
    assert metrics["teacher"]["params"] > metrics["student"]["params"] == metrics["control"]["params"]


def test_figures_are_those_of_the_predictions(finished):
    metrics = metrics_of(finished)
    table = pq.read_table(finished / "artifacts/evaluate/predictions.parquet")
    assert table.column_names == [
        "id",
        "label",
        "teacher",
        "student",
        "control",
        "onnx",
        "onnx_int8",
        "onnx_confidence",
    ]
    assert table.schema.field("id").type == pa.uint64()
    columns = {name: table[name].to_numpy() for name in table.column_names}
    test = open_shard(finished / "artifacts/ingest/shards/test")
    assert (columns["id"] == test.ids).all()
    accuracy = {name: (columns[name] == test.labels).mean() for name in ("teacher", "student", "control", "onnx")}
    for name in ("teacher", "student", "control"):
        assert metrics[name]["accuracy"] == pytest.approx(accuracy[name])
    assert accuracy["student"] > 0.6
    assert (columns["control"] != columns["onnx"]).any()
    assert (columns["student"] == columns["onnx"]).all()
    assert metrics["gain"]["accuracy"] == pytest.approx(accuracy["onnx"] - accuracy["control"])
    assert metrics["gain"]["ci95"][0] <= metrics["gain"]["accuracy"] <= metrics["gain"]["ci95"][1]
    assert ((columns["onnx_confidence"] > 1 / 3) & (columns["onnx_confidence"] <= 1)).all()


def test_corrupted_figures_are_those_of_the_shipped_file_on_corrupted_images(finished):
    test = open_shard(finished / "artifacts/ingest/shards/test")
    spec = pixel_model.load(finished / "artifacts/distill/model.safetensors").spec
    run = program.reload(finished / "artifacts/compress/student.onnx")
    resized = resize_pixels(np.array(test.images), SEEN).transpose(0, 2, 3, 1)
    shipped, accuracies = metrics_of(finished)["shipped"]["onnx"], []
    for kind, images in corruptions.corrupted(resized, test.ids):
        pixels = onnx_file.fit(images, spec.image_size, spec.in_chans)
        accuracies.append((run(pixels).argmax(axis=1) == test.labels).mean())
        assert shipped[f"{kind}_accuracy"] == pytest.approx(accuracies[-1])
    assert shipped["corrupted_accuracy"] == pytest.approx(np.mean(accuracies))
    assert len(set(accuracies)) > 1


def test_slices_are_those_of_the_predictions(finished):
    table = pq.read_table(finished / "artifacts/evaluate/predictions.parquet")
    right = table["onnx"].to_numpy() == table["label"].to_numpy()
    slices = metrics_of(finished)["slices"]
    assert list(slices) == ["class", "camera"]
    for place in range(3):
        mine, of_class = np.arange(257) % 3 == place, table["label"].to_numpy() == place
        camera, recall = slices["camera"][f"camera {place}"], slices["class"][CLASSES[place]]
        assert camera == {"n": mine.sum(), "accuracy": pytest.approx(right[mine].mean())}
        assert recall == {"n": of_class.sum(), "accuracy": pytest.approx(right[of_class].mean())}
    assert min(each["accuracy"] for each in slices["class"].values()) == pytest.approx(
        metrics_of(finished)["shipped"]["onnx"]["worst_class_recall"]
    )


def test_the_probe_is_the_shipped_file_s_own_predictions(finished):
    with np.load(finished / "artifacts/evaluate/probe.npz", allow_pickle=False) as probe:
        pixels, predicted = probe["pixels"], probe["predicted"]
    assert (pixels.shape, pixels.dtype) == ((64, 1, SEEN, SEEN), np.uint8)
    assert predicted.dtype == np.int64
    run = program.reload(finished / "artifacts/compress/student.onnx")
    for batch in (1, 3, 64):
        parts = [run(pixels[i : i + batch]).argmax(axis=1) for i in range(0, 64, batch)]
        assert (np.concatenate(parts) == predicted).all()


def test_the_journal_holds_figures_pictures_card_and_dataset(finished):
    lines = logged(finished, "evaluate")
    values = {name: value for line in lines if line["op"] == "metrics" for name, value in line["values"].items()}
    assert len(values) < 80
    assert values["test/onnx_accuracy"] == metrics_of(finished)["shipped"]["onnx"]["accuracy"]
    assert {"test/teacher_accuracy", "test/control_accuracy", "gain/accuracy", "gain/ci95_low"} <= set(values)
    assert {f"test/{model}_{name}" for model in ("onnx", "control") for name in CORRUPTED} <= set(values)
    artifacts = {Path(line["path"]).name for line in lines if line["op"] == "artifact"}
    assert artifacts == {"metrics.json", "predictions.parquet", "figures", "model-card.md", "model-card.html"}
    assert [line["digest"] for line in lines if line["op"] == "dataset"] == ["t" * 64]


def test_the_card_is_next_to_its_figures(finished):
    folder = finished / "artifacts/evaluate"
    links = re.findall(r"\((figures/[^)]+)\)", (folder / "model-card.md").read_text())
    assert {link.removeprefix("figures/") for link in links} == {p.name for p in (folder / "figures").iterdir()}
    assert (folder / "model-card.html").read_text().count("data:image/png;base64,") == len(links)
    assert not list(folder.glob(".*"))


def test_the_card_s_code_runs_and_predicts(finished, tmp_path, monkeypatch, capsys):
    test = open_shard(finished / "artifacts/ingest/shards/test")
    shutil.copy(finished / "artifacts/compress/student.onnx", tmp_path)
    monkeypatch.chdir(tmp_path)
    snippet = re.search(r"```python\n(.*?)```", (finished / "artifacts/evaluate/model-card.md").read_text(), re.DOTALL)
    Image.fromarray(test.images[0, ..., 0]).save("image.png")
    exec(compile(snippet[1], "card", "exec"), {})  # noqa: S102 - the card's own code is what is tested
    assert capsys.readouterr().out.strip() in CLASSES


def test_a_file_that_is_not_the_student_is_refused_on_the_test_split(finished, here):
    shutil.copytree(finished / "artifacts/compress", here / "artifacts/compress")
    other = pixel_model.load(here / "artifacts/control/model.safetensors")
    onnx.save(program.to_onnx(program.export(other)), here / "artifacts/compress/student.onnx")
    with pytest.raises(UserError, match=r"student\.onnx is not the student: it predicts another class on \d+ of 257"):
        run_here("evaluate", evaluate)
    assert not (here / "artifacts/evaluate/metrics.json").exists()
    assert not (here / "artifacts/evaluate/figures").exists()


def test_an_empty_test_split_is_one_sentence(finished, here):
    for name in ("images", "labels", "ids"):
        path = here / f"artifacts/ingest/shards/test/{name}.npy"
        np.save(path, np.load(path)[:0])
    with pytest.raises(UserError, match="test split holds no images"):
        run_here("evaluate", evaluate)


def test_a_manifest_of_other_images_is_refused(finished, here):
    shutil.copytree(finished / "artifacts/compress", here / "artifacts/compress")
    path = here / "artifacts/ingest/manifest.parquet"
    pq.write_table(pq.read_table(path).slice(1), path)
    with pytest.raises(UserError, match=r"manifest.parquet lists other test images than .*shards/test holds"):
        run_here("evaluate", evaluate)
    assert not (here / "artifacts/evaluate/metrics.json").exists()


def test_models_of_other_classes_are_refused(finished, here):
    shutil.copytree(finished / "artifacts/compress", here / "artifacts/compress")
    path = here / "artifacts/ingest/dataset.json"
    path.write_text(path.read_text().replace('"bright"', '"blinding"'))
    with pytest.raises(UserError, match="blinding"):
        run_here("evaluate", evaluate)
