"""The stage with every method of ``distill.method``, after the stages before it, on a tiny dataset of three classes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from reflux.components.core.artifacts import sha256_file
from reflux.components.core.errors import UserError
from reflux.components.core.params.distill import METHODS, LayerLoss
from reflux.components.core.params.file import override_params
from reflux.components.core.runtime.stage import Stage
from reflux.components.modalities.image.models.pixel_model import load, parameter_count, pixel_model, save
from reflux.components.stages.distill import __main__ as distill
from reflux.components.stages.finetune import __main__ as finetune
from reflux.components.stages.label import __main__ as label
from reflux.components.stages.pretrain import __main__ as pretrain
from tests.workspaces import run_stage, training_workspace

NAMES = ("dark", "gray", "bright")


def write_split(folder: Path, count: int, seed: int, labeled: bool) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count)
    images = rng.integers(0, 60, (count, 12, 12, 1)) + 90 * labels[:, None, None, None]
    np.save(folder / "images.npy", images.astype(np.uint8))
    np.save(folder / "labels.npy", labels if labeled else np.full(count, -1))


@pytest.fixture(scope="module")
def labeled(tmp_path_factory) -> Path:
    """A workspace up to the soft labels."""
    folder = training_workspace(tmp_path_factory.mktemp("methods") / "one")
    for seed, split in enumerate(("train", "val", "unlabeled", "test")):
        write_split(folder / "artifacts/ingest/shards" / split, 40, seed, split != "unlabeled")
    facts = json.loads((folder / "artifacts/ingest/images.json").read_text()) | {"classes": NAMES}
    (folder / "artifacts/ingest/images.json").write_text(json.dumps(facts))
    settings = ["pretrain.model=resnet20", "student.optimizer=sgd", "student.lr=0.02"]
    params = override_params(settings, folder / "params.yaml")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, module in (("pretrain", pretrain), ("finetune", finetune), ("label", label)):
            (folder / "artifacts" / name).mkdir()
            module.main(Stage(name, params))
    return folder


def distilled(labeled: Path, folder: Path, monkeypatch, *settings: str) -> Path:
    shutil.copytree(labeled, folder)
    params = override_params(list(settings), folder / "params.yaml")
    monkeypatch.chdir(folder)
    label.main(Stage("label", params))
    distill.main(Stage("distill", params))
    return folder


@pytest.mark.parametrize("name", METHODS)
def test_every_method_trains_a_student_that_ships_alone(labeled: Path, tmp_path: Path, monkeypatch, name: str):
    smaller = {
        "crd": "{name: crd, negatives: 16}",
        "teacher-assistant": "{name: teacher-assistant, assistants: [resnet8]}",
    }
    folder = distilled(labeled, tmp_path / "one", monkeypatch, f"distill.method={smaller.get(name, name)}")
    student = load(folder / "artifacts/distill/model.safetensors")
    own = pixel_model("resnet8_slim", NAMES, 12, 1, [0.4], [0.3])
    assert student.state_dict().keys() == own.state_dict().keys()
    history = pq.read_table(folder / "artifacts/distill/history.parquet").to_pandas()
    assert history["train_loss"].iloc[-1] < history["train_loss"].iloc[0]
    assert (len(list((folder / "artifacts/label/store").glob("0*.npy"))) == 0) == (
        issubclass(METHODS[name], LayerLoss) or name == "deep-mutual-learning"
    )
    assert not list((folder / ".reflux/checkpoints").rglob("*.*"))
    (journal,) = [
        file for file in (folder / ".reflux/outbox").glob("*/journal.jsonl") if '"stage": "distill"' in file.read_text()
    ]
    assert f'"distill.method": "{name}' in journal.read_text()
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    steps = [line["step"] for line in lines if "val/accuracy" in line.get("values", {})]
    assert steps == sorted(set(steps)), "one curve, also over the networks between teacher and student"


def test_the_last_of_a_chain_learns_from_the_one_before_it(labeled: Path, tmp_path: Path, monkeypatch):
    """Its loss is that of a student whose teacher is the assistant's file, to the bit."""
    kept = {}

    def keep(model, path):
        kept[path.name] = model
        save(model, path)

    monkeypatch.setattr("reflux.components.stages.distill.trainer.save", keep)
    chain = "distill.method=[{name: teacher-assistant, assistants: [resnet8]}, {name: kd, temperature: 2}]"
    folder = distilled(labeled, tmp_path / "chain", monkeypatch, chain)
    (assistant,) = kept.values()
    assert (assistant.spec.name, parameter_count(assistant)) == ("resnet8", parameter_count(load_named("resnet8")))
    direct = tmp_path / "direct"
    shutil.copytree(labeled, direct)
    save(assistant, direct / "artifacts/finetune/model.safetensors")
    params = override_params(
        ["distill.method={name: kd, temperature: 2}", "distill.teacher=live"], direct / "params.yaml"
    )
    monkeypatch.chdir(direct)
    distill.main(Stage("distill", params))
    files = [place / "artifacts/distill/model.safetensors" for place in (folder, direct)]
    assert sha256_file(files[0]) == sha256_file(files[1])


def load_named(name: str):
    return pixel_model(name, NAMES, 12, 1, [0.4], [0.3])


@pytest.mark.long
@pytest.mark.parametrize(
    "taught",
    [
        ["distill.method=[kd, {name: crd, negatives: 16}, reviewkd]"],
        ["distill.method=[kd, temporal-ensembling]"],
        ["distill.method={name: born-again, generations: 2}"],
        ["student.weights=distilled-features", "distill.finish=labels", "distill.finish_share=0.4"],
    ],
    ids=["layers", "answers", "generations", "phases"],
)
def test_kill_9_costs_no_bit_of_what_is_trained_along_with_the_student(labeled: Path, tmp_path: Path, taught):
    folders = [tmp_path / name for name in ("whole", "killed")]
    settings = [
        *taught,
        "student.steps=120",
        "run.checkpoint_every_s=0.05",
        "run.deterministic=true",
    ]
    for folder in folders:
        shutil.copytree(labeled, folder)
        override_params([*settings, "student.ema_decay=0.9"], folder / "params.yaml")
        assert run_stage("label", folder).returncode == 0
    assert run_stage("distill", folders[0]).returncode == 0
    resumed = []
    for _ in range(2):
        process = subprocess.Popen(
            [sys.executable, "-m", "reflux.components.stages.distill"],
            cwd=folders[1],
            stdout=subprocess.PIPE,
            env=os.environ | {"REFLUX_EVENTS": "1"},
        )
        events = (json.loads(line.strip(b"\x1e\n ")) for line in process.stdout if line.startswith(b"\x1e"))
        resumed.append(next(events)["done"])
        while not list((folders[1] / ".reflux/checkpoints").rglob("[!.]*.pt")):
            time.sleep(0.01)
        next(event for event in events if event["done"] >= resumed[-1] + 100)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert run_stage("distill", folders[1]).returncode == 0
    results = [sha256_file(folder / "artifacts/distill/model.safetensors") for folder in folders]
    assert results[0] == results[1], f"killed after {resumed} images"


@pytest.mark.parametrize("weighting", ["average", "confidence"])
def test_several_teachers_answer_as_one(labeled: Path, tmp_path: Path, monkeypatch, weighting: str):
    """Stored and live, and a student of one teacher twice is that of the teacher alone, to the rounding of float16."""
    torch.manual_seed(9)
    save(load_named("resnet14"), tmp_path / "second.safetensors")
    histories = []
    of_one = ["distill.teachers=[]"]
    both = [f"distill.ensemble={weighting}", f"distill.teachers=[{tmp_path / 'second.safetensors'}]"]
    twice = [both[0], "distill.teachers=[artifacts/finetune/model.safetensors]"]
    for name, settings in (
        ("one", of_one),
        ("twice", twice),
        ("both", both),
        ("live", [*both, "distill.teacher=live"]),
    ):
        folder = distilled(labeled, tmp_path / name, monkeypatch, "student.eval_every=1", *settings)
        histories.append(pq.read_table(folder / "artifacts/distill/history.parquet")["train_loss"].to_numpy()[:5])
    one, twice, stored, live = histories
    assert np.allclose(one, twice, rtol=0.02)
    assert np.allclose(stored, live, rtol=0.02)
    assert np.abs(one - stored).max() > 0.1 * one.max()


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (
            ["distill.method={name: teacher-assistant, assistants: [resnet32]}"],
            "The teacher assistant resnet32 has .* more",
        ),
        (["distill.teachers=[gone.safetensors]"], "gone.safetensors is missing"),
        (["distill.teachers=[a.safetensors]", "distill.method=rkd"], "rkd compares the layers of one teacher"),
        (["distill.method={name: fitnet, teacher: 'stage:12'}"], "resnet20 has no stage:12: its stages are stage:0"),
        (
            ["distill.method={name: teacher-assistant, assistants: [resnet_20]}"],
            "No model is named resnet_20; did you mean",
        ),
    ],
)
def test_bad_input_is_one_sentence(labeled: Path, tmp_path: Path, monkeypatch, settings: list[str], sentence: str):
    with pytest.raises(UserError, match=sentence):
        distilled(labeled, tmp_path / "one", monkeypatch, *settings)


def test_joint_transfers_a_pretrained_student_from_a_teacher_that_only_got_a_head(
    labeled: Path, tmp_path: Path, monkeypatch
):
    folder = tmp_path / "one"
    shutil.copytree(labeled, folder)
    torch.manual_seed(5)
    source = pixel_model("resnet8_slim", tuple("abcde"), 16, 1, [0.5], [0.2])
    save(source, tmp_path / "source.safetensors")
    settings = [f"student.weights={tmp_path / 'source.safetensors'}", "distill.when=joint", "student.steps=1"]
    params = override_params([*settings, "student.lr=1e-9", "student.eval_every=1"], folder / "params.yaml")
    monkeypatch.chdir(folder)
    for name, module in (("pretrain", pretrain), ("finetune", finetune), ("label", label), ("distill", distill)):
        module.main(Stage(name, params))
    before, after = (load(folder / f"artifacts/{stage}/model.safetensors") for stage in ("pretrain", "finetune"))
    assert all(
        torch.equal(a, b) for a, b in zip(before.net.trunk.parameters(), after.net.trunk.parameters(), strict=True)
    )
    student = load(folder / "artifacts/distill/model.safetensors")
    assert (student.spec.classes, student.spec.mean) == (NAMES, (0.5,))
    pairs = zip(source.net.trunk.parameters(), student.net.trunk.parameters(), strict=True)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in pairs)
    origin = json.loads((folder / "artifacts/pretrain/student/model.json").read_text())
    assert origin["sha256"] == sha256_file(tmp_path / "source.safetensors")
