"""From shipped files to figures and model card."""

import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import ModelCard
from PIL import Image

from reflux.components.core.artifacts import sha256_file
from reflux.components.core.contract import shipped
from reflux.components.core.data.shards import open_shard
from reflux.components.core.errors import UserError
from reflux.components.core.export import program
from reflux.components.core.export.network import load
from reflux.components.core.runtime import history
from reflux.components.modalities.image import stress
from reflux.components.modalities.image.models import pixel_model
from reflux.components.modalities.image.pixels import decode
from reflux.components.modalities.image.preprocess import fit, resize
from reflux.components.registry.policy.gates import gated_figures
from reflux.components.registry.versions import smoke_process
from reflux.components.registry.versions.evaluated_run import read_evaluated_run
from reflux.components.stages.compress.__main__ import main as compress
from reflux.components.stages.evaluate import __main__ as stage
from reflux.components.stages.evaluate import figures
from reflux.components.stages.evaluate.__main__ import main as evaluate
from reflux.components.stages.evaluate.metrics import confidences
from tests.trained import CLASSES, SEEN, STORED, run_here
from tests.workspaces import watched

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
    assert [name for name in metrics if name != "remedy"] == [
        *(
            "test",
            "teacher",
            "student",
            "control",
            "shipped",
            "ships",
            "candidate",
            "gain",
            "slices",
            "confusions",
            "rounds",
            "classes",
            "dataset",
            "artifact_sha256",
            "source_domain",
            "probe_sha256",
            "trained_on_sha256",
        ),
    ]
    assert metrics["test"] == {"fingerprint": "t" * 64, "n": 257}
    assert metrics["classes"] == CLASSES
    assert metrics["dataset"]["name"] == "grays"
    assert set(metrics["teacher"]) == set(metrics["shipped"]["onnx_int8"]) == FIGURES | LATENCIES
    assert set(metrics["student"]) == set(metrics["shipped"]["pt2"]) == FIGURES
    assert set(metrics["shipped"]["onnx"]) == set(metrics["control"]) == FIGURES | LATENCIES | CORRUPTED
    domain = metrics["source_domain"]
    assert (domain["name"], domain["train"], domain["n"]) == ("charts", 30, 20)
    assert set(domain["accuracy"]) == {"teacher", "student"}
    assert set(metrics["gain"]) == {"accuracy", "ci95", "p_value", "wins", "losses"}
    assert ("remedy" in metrics) == (metrics["gain"]["ci95"][0] <= 0)
    files = finished / "artifacts/compress"
    assert metrics["artifact_sha256"]["onnx"] == sha256_file(files / "student.onnx")
    assert metrics["probe_sha256"] == sha256_file(finished / "artifacts/evaluate/probe.npz")
    assert metrics["trained_on_sha256"] == sha256_file(finished / "artifacts/evaluate/trained-on.npy")
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
        "shipped",
        "shipped_confidence",
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
    assert (columns["shipped"] == columns["onnx"]).all()
    assert ((columns["shipped_confidence"] > 1 / 3) & (columns["shipped_confidence"] <= 1)).all()


def test_the_file_that_ships_is_the_student_everywhere(here, monkeypatch):
    run_here("compress", compress, "compress.ships=onnx-int8")
    timed = watched(monkeypatch, stage, "side_by_side")
    run_here("evaluate", evaluate)
    metrics, file = metrics_of(here), here / "artifacts/compress/student-int8.onnx"
    test = open_shard(here / "artifacts/ingest/shards/test")
    table = pq.read_table(here / "artifacts/evaluate/predictions.parquet")
    shipped, control, label = (table[name].to_numpy() for name in ("shipped", "control", "label"))
    logits, fp32 = (load(each).logits(test.images) for each in (file, file.with_name("student.onnx")))
    confidence = table["shipped_confidence"].to_numpy()
    assert (shipped == logits.argmax(axis=1)).all()
    np.testing.assert_allclose(confidence, confidences(logits), rtol=1e-5)
    assert not np.allclose(confidence, confidences(fp32), rtol=1e-5)
    assert metrics["ships"]["file"] == "student-int8.onnx"
    (comparison,) = timed
    assert (comparison["first"].name, comparison["second"].name) == ("student.onnx", "student-int8.onnx")
    times = comparison["result"].faster
    assert metrics["ships"].get("slower") == (times if times > 1 else None)
    assert ("times as long as" in (here / "artifacts/evaluate/model-card.md").read_text()) == (times > 1)
    # Like with like: what the int8 file lost is not taken for a loss by distillation.
    student = fp32.argmax(axis=1)
    assert (student != shipped).any()
    assert metrics["gain"]["accuracy"] == pytest.approx((student == label).mean() - (control == label).mean())
    lost = 100 * ((student == label).mean() - (shipped == label).mean())
    assert f"the int8 file lost {lost:+.2f}" in (here / "artifacts/evaluate/model-card.md").read_text()
    assert "corrupted_accuracy" in metrics["shipped"]["onnx_int8"]
    with np.load(here / "artifacts/evaluate/probe.npz") as probe:
        assert (load(file).run(probe["pixels"]).argmax(axis=1) == probe["predicted"]).all()
    evaluated = read_evaluated_run(here / "artifacts")
    assert (evaluated.file, evaluated.sha256) == (here / "artifacts/compress/student-int8.onnx", sha256_file(file))
    assert gated_figures(metrics)["size_kb"] == file.stat().st_size / 1024


def test_corrupted_figures_are_those_of_the_shipped_file_on_corrupted_images(finished):
    test = open_shard(finished / "artifacts/ingest/shards/test")
    spec = pixel_model.load(finished / "artifacts/distill/model.safetensors").spec
    run = load(finished / "artifacts/compress/student.onnx").run
    resized = resize(np.array(test.images), SEEN).transpose(0, 2, 3, 1)
    shipped, accuracies = metrics_of(finished)["shipped"]["onnx"], []
    for kind, images in stress.corrupted(resized, test.ids):
        pixels = fit(images, spec.image_size, spec.in_chans)
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


def test_the_likeliest_confusions_are_those_of_the_predictions(finished):
    table = pq.read_table(finished / "artifacts/evaluate/predictions.parquet")
    label, predicted = table["label"].to_numpy(), table["onnx"].to_numpy()
    pairs = Counter(zip(label[label != predicted], predicted[label != predicted], strict=True))
    confusions = metrics_of(finished)["confusions"]
    assert [each["n"] for each in confusions] == [n for _, n in pairs.most_common(3)]
    for each in confusions:
        true, other = CLASSES.index(each["true"]), CLASSES.index(each["predicted"])
        assert (each["n"], each["of"]) == (pairs[true, other], (label == true).sum())


def test_the_probe_is_the_shipped_file_s_own_predictions(finished):
    with np.load(finished / "artifacts/evaluate/probe.npz", allow_pickle=False) as probe:
        pixels, predicted = probe["pixels"], probe["predicted"]
    assert (pixels.shape, pixels.dtype) == ((64, 1, SEEN, SEEN), np.uint8)
    assert predicted.dtype == np.int64
    run = load(finished / "artifacts/compress/student.onnx").run
    for batch in (1, 3, 64):
        parts = [run(pixels[i : i + batch]).argmax(axis=1) for i in range(0, 64, batch)]
        assert (np.concatenate(parts) == predicted).all()


def test_the_probe_holds_no_image_of_the_dataset(finished):
    with np.load(finished / "artifacts/evaluate/probe.npz", allow_pickle=False) as kept:
        probed = kept["pixels"]
    for split in ("train", "val", "test"):
        seen = fit(np.array(open_shard(finished / "artifacts/ingest/shards" / split).images), SEEN, 1)
        apart = np.abs(seen[:, None].astype(int) - probed[None]).mean(axis=(2, 3, 4))
        assert apart.min(initial=255) > 5  # levels of 255, on average


def test_the_probe_tells_another_model_from_the_one_that_it_recorded(finished):
    with np.load(finished / "artifacts/evaluate/probe.npz", allow_pickle=False) as kept:
        pixels, predicted = kept["pixels"], kept["predicted"]
    model = load(finished / "artifacts/compress/student.onnx")
    control = pixel_model.load(finished / "artifacts/control/model.safetensors")
    others = {
        "control": lambda batch: program.forward(control, batch),
        "classes in another order": lambda batch: model.run(batch)[:, [1, 2, 0]],
        "inverted pixels": lambda batch: model.run(255 - batch),
        "one class": lambda batch: np.eye(3, dtype=np.float32)[np.zeros(len(batch), int)],
    }
    smoke_process.compare(model.run, pixels, predicted)
    for other in others.values():
        with pytest.raises(smoke_process.Failed, match="other classes than the evaluation recorded"):
            smoke_process.compare(other, pixels, predicted)


@pytest.mark.long
def test_the_probe_holds_test_images_if_a_param_says_so(finished, here):
    shutil.copytree(finished / "artifacts/compress", here / "artifacts/compress")
    run_here("evaluate", evaluate, "evaluate.probe=test")
    test = {
        image.tobytes() for image in fit(np.array(open_shard(Path("artifacts/ingest/shards/test")).images), SEEN, 1)
    }
    with np.load("artifacts/evaluate/probe.npz", allow_pickle=False) as kept:
        pixels, predicted = kept["pixels"], kept["predicted"]
    assert {image.tobytes() for image in pixels} <= test
    assert (load(Path("artifacts/compress/student.onnx")).run(pixels).argmax(axis=1) == predicted).all()


def test_the_images_that_the_student_was_made_from_are_kept_by_their_ids(finished):
    ids = np.load(finished / "artifacts/evaluate/trained-on.npy", allow_pickle=False)
    splits = {split: open_shard(finished / "artifacts/ingest/shards" / split).ids for split in ("train", "val", "test")}
    others = ("source-domain/shards/train", "pretrain-source/shards/train", "pretrain-source/shards/val")
    taught = [open_shard(finished / "artifacts/ingest" / each).ids for each in others]
    assert ids.tolist() == np.sort(np.concatenate([splits["train"], splits["val"], *taught])).tolist()
    assert not np.isin(splits["test"], ids).any()


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


def test_the_card_and_the_figures_tell_the_rounds_of_the_teacher(finished):
    assert [each["kept"] for each in metrics_of(finished)["rounds"]] == [False, True]
    card = (finished / "artifacts/evaluate/model-card.md").read_text()
    assert "The teacher was trained in 2 rounds" in card
    assert "| 2 | 31 | 0.6250 | 75.00% | kept |" in card


def pictures(folder: Path) -> list[str]:
    """Write a picture of each kind that is easily read in another way."""
    rng = np.random.default_rng(0)
    # Smooth, so that JPEG keeps it, and lopsided, so that a turn shows.
    rgb = Image.fromarray(rng.integers(0, 256, (4, 6, 3), dtype=np.uint8)).resize((40, 23), Image.Resampling.BICUBIC)
    turned = Image.Exif()
    turned[0x0112] = 6
    opacity = Image.linear_gradient("L").resize(rgb.size)
    deep = np.asarray(rgb.convert("L")).astype(np.uint16) * 200
    palette = rgb.quantize(8)
    rgb.save(folder / "turned.jpg", exif=turned)
    rgb.save(folder / "wide.png")
    rgb.convert("L").save(folder / "gray.webp")
    rgb.convert("CMYK").save(folder / "cmyk.jpg")
    Image.merge("RGBA", (*rgb.split(), opacity)).save(folder / "transparent.png")
    Image.merge("LA", (rgb.convert("L"), opacity)).save(folder / "gray-transparent.png")
    palette.save(folder / "palette.png", transparency=palette.getpixel((0, 0)))
    Image.fromarray(deep).save(folder / "deep.png")
    Image.fromarray(deep > 20_000).save(folder / "bits.png")
    return sorted(path.name for path in folder.iterdir())


def test_the_card_s_code_sees_what_the_pipeline_sees(finished, tmp_path):
    names = pictures(tmp_path)
    shutil.copy(finished / "artifacts/compress/student.onnx", tmp_path)
    text = (finished / "artifacts/evaluate/model-card.md").read_text()
    use, _, module = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (tmp_path / "preprocess.py").write_text(module)
    lines = "import sys\nprint(json.dumps([logits.tolist(), sorted(sys.modules)]))\n"
    network = load(finished / "artifacts/compress/student.onnx")
    for name in names:
        (tmp_path / "use.py").write_text(f"{use.replace('image.png', name)}\n{lines}")
        command = [sys.executable, "use.py"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        said, printed = done.stdout.splitlines()
        logits, modules = json.loads(printed)
        assert not {"reflux", "torch"} & set(modules)
        expected = network.logits(decode((tmp_path / name).read_bytes(), 1, STORED, 50).pixels[None])
        assert np.allclose(logits, expected, atol=1e-6), name
        assert said == CLASSES[expected.argmax()]


@pytest.mark.long
def test_the_params_reach_what_measures(finished, here, monkeypatch):
    shutil.copytree(finished / "artifacts/compress", here / "artifacts/compress")
    timed, resampled = (watched(monkeypatch, stage, name) for name in ("latency", "paired_bootstrap"))
    run_here(
        "evaluate", stage.main, "evaluate.latency_runs=21", "evaluate.bootstrap=123", "evaluate.license=mit", "seed=7"
    )
    assert [call["runs"] for call in timed] == [21] * 4
    assert {(call["resamples"], call["seed"]) for call in resampled} == {(123, 7)}
    data = ModelCard.load(here / "artifacts/evaluate/model-card.md").data
    assert data.license == "mit"
    reported = {each.metric_type: each.metric_value for each in data.eval_results}
    assert reported["accuracy"] == shipped(metrics_of(here))["accuracy"]


@pytest.mark.long
def test_a_teacher_that_was_used_as_it_came_has_no_learning_curve(finished, here, monkeypatch):
    shutil.copytree(finished / "artifacts/compress", here / "artifacts/compress")
    history.write(here / "artifacts/finetune/history.parquet", {})
    drawn = watched(monkeypatch, figures, "learning_curves")
    run_here("evaluate", evaluate)
    assert [set(call["histories"]) for call in drawn] == [{"student", "control"}]
    assert (here / "artifacts/evaluate/figures/learning-curves.png").is_file()


@pytest.mark.long
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
    pq.write_table(pq.read_table(path).slice(1), path)  # without the first row, one of the test split
    with pytest.raises(UserError, match=r"manifest.parquet lists other test images than .*shards/test holds"):
        run_here("evaluate", evaluate)
    assert not (here / "artifacts/evaluate/metrics.json").exists()


def test_models_of_other_classes_are_refused(finished, here):
    shutil.copytree(finished / "artifacts/compress", here / "artifacts/compress")
    path = here / "artifacts/ingest/dataset.json"
    path.write_text(path.read_text().replace('"bright"', '"blinding"'))
    with pytest.raises(UserError, match="blinding"):
        run_here("evaluate", evaluate)
