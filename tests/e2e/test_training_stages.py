"""The stages from pretrain to control, as processes, on a tiny dataset."""

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from reflux.components.core.artifacts import fingerprint, sha256_file
from reflux.components.core.contract import TRAINING
from reflux.components.core.errors import UserError
from reflux.components.core.params.file import load_params, override_params
from reflux.components.core.runtime.stage import Stage
from reflux.components.modalities.image.encoded import write_encoding
from reflux.components.modalities.image.models.pixel_model import load
from reflux.components.stages.control import __main__ as control
from reflux.components.stages.distill import __main__ as distill
from reflux.components.stages.label import __main__ as label
from tests.workspaces import run_stage, training_workspace, write_shard

pytestmark = pytest.mark.long

STAGES = {"label": label, "distill": distill, "control": control}


def encode(folder: Path) -> None:
    """Keep a split's images as PNG files."""
    images = np.load(folder / "images.npy")
    files = [io.BytesIO() for _ in images]
    for image, file in zip(images, files, strict=True):
        Image.fromarray(image[..., 0]).save(file, "PNG")
    (folder / "images.bin").write_bytes(b"".join(file.getvalue() for file in files))
    write_encoding(folder, np.cumsum([len(file.getvalue()) for file in files]), images.shape[1], images.shape[3])
    (folder / "images.npy").unlink()


def run_here(stage: str, *overrides: str) -> None:
    """Run a stage in this process, where no end of a process is to be seen."""
    params = override_params(list(overrides)) if overrides else load_params()
    STAGES[stage].main(Stage(stage, params))


@pytest.fixture
def copy(trained: Path, tmp_path: Path, monkeypatch) -> Path:
    """A copy of the trained workspace, as the working folder."""
    folder = tmp_path / "copy"
    shutil.copytree(trained, folder, ignore=shutil.ignore_patterns(".reflux"))
    shutil.copytree(trained / ".reflux/soft-labels", folder / ".reflux/soft-labels")
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    folder = training_workspace(tmp_path_factory.mktemp("training") / "one")
    for stage in TRAINING:
        done = run_stage(stage, folder)
        assert done.returncode == 0, done.stderr
    return folder


def weights(folder: Path) -> dict[str, str]:
    files = [f"artifacts/{stage}/model.safetensors" for stage in TRAINING if stage != "label"]
    return {file: fingerprint(folder / file) for file in [*files, "artifacts/label/store"]}


def test_the_stages_leave_what_the_design_promises(trained: Path):
    for stage in ("finetune", "distill", "control"):
        history = pq.read_table(trained / f"artifacts/{stage}/history.parquet").to_pandas()
        columns = ["phase", "step", "images", "lr", "train_loss", "val_loss", "val_accuracy", "train_accuracy"]
        parts = {"train_kd", "train_ce"} if stage == "distill" else {"train_ce"}
        assert set(history.columns) == {*columns, *parts, "images_per_s", "grad_norm", "memory_mb"}
        model = load(trained / f"artifacts/{stage}/model.safetensors")
        assert model.spec.classes == ("dark", "bright")
        journals = (file.read_text().splitlines() for file in trained.glob(".reflux/outbox/*/journal.jsonl"))
        (mine,) = (lines for lines in journals if f'"stage": "{stage}"' in lines[0])
        steps = [entry["step"] for entry in map(json.loads, mine) if "train/accuracy" in entry.get("values", {})]
        assert steps == sorted(set(steps)), "one curve, also over probe and full fine-tuning"
        assert len(steps) == len(history)
    assert np.load(trained / "artifacts/label/store/000000.npy").shape == (80, 2, 2)
    note = json.loads((trained / "artifacts/distill/run.json").read_text())
    assert note["inputs"]["artifacts/label/store"] == fingerprint(trained / "artifacts/label/store")
    assert not [name for name in note["inputs"] if "shards/test" in name]


def test_the_control_has_the_students_network_and_budget(trained: Path):
    student, control = (load(trained / f"artifacts/{s}/model.safetensors") for s in ("distill", "control"))
    assert student.spec == control.spec
    histories = [pq.read_table(trained / f"artifacts/{s}/history.parquet").to_pandas() for s in ("distill", "control")]
    for column in ("step", "images", "lr"):
        assert histories[0][column].tolist() == histories[1][column].tolist()


@pytest.mark.long
def test_neither_test_images_nor_how_images_are_stored_and_decoded_change_a_weight(trained: Path, tmp_path: Path):
    """Other test images and labels, PNG files, two processes that decode: weights and soft labels are the same bits."""
    folder = training_workspace(tmp_path / "other", test_seed=99)
    override_params(["run.workers=2"], folder / "params.yaml")
    for shard in (folder / "artifacts/ingest/shards").iterdir():
        encode(shard)
    for stage in TRAINING:
        done = run_stage(stage, folder)
        assert done.returncode == 0, done.stderr
    assert weights(folder) == weights(trained)


def test_soft_labels_of_other_views_are_refused(copy: Path):
    before = sha256_file(copy / "artifacts/distill/model.safetensors")
    with pytest.raises(UserError, match="soft labels of other images, views or classes"):
        run_here("distill", "student.augment.shift=0.2")
    assert sha256_file(copy / "artifacts/distill/model.safetensors") == before


@pytest.mark.long
def test_label_goes_on_after_kill_9_with_the_shards_that_are_finished(trained: Path, tmp_path: Path):
    """DVC deletes the outs before it runs a stage again; the finished shards are elsewhere, and end the same."""
    folders = [tmp_path / name for name in ("whole", "killed")]
    for folder in folders:
        shutil.copytree(trained, folder, ignore=shutil.ignore_patterns(".reflux"))
        shutil.rmtree(folder / "artifacts/ingest/shards/train")
        write_shard(folder / "artifacts/ingest/shards/train", 3500, 7)
        shutil.rmtree(folder / "artifacts/label")
    assert "7,080 computed, 0 reused" in run_stage("label", folders[0]).stdout
    process = subprocess.Popen(
        [sys.executable, "-m", "reflux.components.stages.label"], cwd=folders[1], stdout=subprocess.DEVNULL
    )
    while not list((folders[1] / ".reflux/soft-labels").glob("*/000001.json")):
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    shutil.rmtree(folders[1] / "artifacts/label")
    done = run_stage("label", folders[1])
    assert done.returncode == 0, done.stderr
    reused = int(re.search(r"([\d,]+) reused", done.stdout)[1].replace(",", ""))
    assert reused >= 2 * 2048
    assert fingerprint(folders[0] / "artifacts/label/store") == fingerprint(folders[1] / "artifacts/label/store")
    assert fingerprint(folders[0] / "artifacts/label/manifest.json") == fingerprint(
        folders[1] / "artifacts/label/manifest.json"
    )


def test_a_damaged_store_is_a_sentence_and_labelling_again_repairs_it(copy: Path, capsys):
    shard = copy / "artifacts/label/store/000000.npy"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"000000\.npy is damaged"):
        run_here("distill")
    shutil.rmtree(copy / "artifacts/label")
    run_here("label")
    assert "0 computed, 160 reused" in capsys.readouterr().out
    run_here("distill")


@pytest.mark.parametrize(
    ("optimizer", "tolerance", "mixing"),
    [("sgd", 2e-3, []), ("adamw", 3e-2, []), ("sgd", 2e-3, ["student.augment.cutmix=0.9"])],
)
def test_a_live_teacher_and_its_stored_soft_labels_give_the_same_curve(
    trained: Path, tmp_path: Path, monkeypatch, optimizer: str, tolerance: float, mixing: list[str]
):
    """In float32 on a CPU only the store's float16 is between them: 1e-4 of the first loss, at the first step.

    After that the students part: by 2e-3 of the first loss over 40 steps of SGD, and by 1e-2 with AdamW (1.4e-2 on
    another CPU), which divides by the gradient's size and so magnifies a rounding.
    """
    monkeypatch.setattr("torch.cpu.get_capabilities", dict)
    histories = {}
    for teacher in ("cached", "live"):
        folder = tmp_path / teacher
        shutil.copytree(trained, folder, ignore=shutil.ignore_patterns("control", "distill", "label", ".reflux"))
        settings = [
            f"distill.teacher={teacher}",
            "student.steps=40",
            "student.eval_every=1",
            "distill.method.temperature=2",
        ]
        params = override_params([*settings, *mixing, f"student.optimizer={optimizer}"], folder / "params.yaml")
        monkeypatch.chdir(folder)
        for name, main in (("label", label.main), ("distill", distill.main)):
            main(Stage(name, params))
        histories[teacher] = pq.read_table("artifacts/distill/history.parquet").to_pandas()
    stores = [list((tmp_path / teacher / "artifacts/label/store").glob("0*.npy")) for teacher in ("cached", "live")]
    assert [len(store) for store in stores] == [1, 0]
    cached, live = (histories[teacher]["train_loss"].to_numpy() for teacher in ("cached", "live"))
    assert not np.array_equal(cached, live)
    assert abs(cached[0] - live[0]) < 1e-4 * live[0]
    assert np.abs(cached - live).max() < tolerance * live[0]


def test_mixed_views_are_labelled_by_the_teacher_or_by_mixtures(trained: Path, copy: Path, capsys):
    plain = fingerprint(copy / "artifacts/label/store")
    with pytest.raises(UserError, match="other images, views or classes"):
        run_here("distill", "student.augment.mixup=0.5", "student.augment.cutmix=0.5")
    run_here("label")
    assert "160 computed, 0 reused" in capsys.readouterr().out
    assert fingerprint(copy / "artifacts/label/store") != plain
    students = {}
    for targets in ("teacher", "mixture"):
        override_params([f"distill.mixed_targets={targets}"], copy / "params.yaml")
        for stage in STAGES:
            run_here(stage)
        students[targets] = weights(copy)
    assert fingerprint(copy / "artifacts/label/store") == plain
    assert len({made["artifacts/distill/model.safetensors"] for made in students.values()}) == 2
    controls = {made["artifacts/control/model.safetensors"] for made in [*students.values(), weights(trained)]}
    assert len(controls) == 2


def test_an_empty_store_is_refused_when_soft_labels_are_wanted(copy: Path, capsys):
    run_here("label", "distill.teacher=live")
    with pytest.raises(UserError, match="is empty, as no method needed soft labels"):
        run_here("distill", "distill.teacher=cached")
    run_here("label")
    assert "0 computed, 160 reused" in capsys.readouterr().out


def test_a_loss_that_explodes_stops_the_stage_and_keeps_the_last_good_checkpoint(copy: Path):
    shutil.rmtree(copy / "artifacts/control")
    with pytest.raises(UserError, match="The loss is not finite at step"):
        run_here("control", "student.lr=1e38", "student.optimizer=sgd", "student.warmup=1.0")
    assert not (copy / "artifacts/control/model.safetensors").exists()


def test_a_stopped_stage_ends_as_killed_and_leaves_nothing_half_written(tmp_path: Path):
    folder = training_workspace(tmp_path / "one")
    override_params(["student.steps=100000"], folder / "params.yaml")
    process = subprocess.Popen(
        [sys.executable, "-m", "reflux.components.stages.control"],
        cwd=folder,
        stdout=subprocess.PIPE,
        env=os.environ | {"REFLUX_EVENTS": "1"},
    )
    assert process.stdout is not None
    for line in process.stdout:
        if b"val_accuracy" in line:
            break
    process.send_signal(signal.SIGTERM)
    began = time.monotonic()
    process.stdout.read()
    assert process.wait() == 130
    assert time.monotonic() - began < 60
    (journal,) = (folder / ".reflux/outbox").glob("*/journal.jsonl")
    assert json.loads(journal.read_text().splitlines()[-1])["status"] == "KILLED"
    assert not list((folder / "artifacts/control").iterdir())


@pytest.mark.long
@pytest.mark.parametrize("stage", ["finetune", "distill"])
def test_kill_9_at_any_moment_costs_no_bit(trained: Path, tmp_path: Path, stage: str):
    """Killed three times, after some more images each; the end is that of a run without a kill."""
    folders = [tmp_path / name for name in ("whole", "killed")]
    longer = ["student.steps=400", "student.ema_decay=0.9", "finetune.epochs=100", "run.checkpoint_every_s=0.05"]
    for folder in folders:
        shutil.copytree(trained, folder)
        override_params([*longer, "run.deterministic=true"], folder / "params.yaml")
    assert run_stage(stage, folders[0]).returncode == 0
    resumed = []
    for moment, images in enumerate((1, 400, 150)):
        process = subprocess.Popen(
            [sys.executable, "-m", f"reflux.components.stages.{stage}"],
            cwd=folders[1],
            stdout=subprocess.PIPE,
            env=os.environ | {"REFLUX_EVENTS": "1"},
        )
        events = (json.loads(line.strip(b"\x1e\n ")) for line in process.stdout if line.startswith(b"\x1e"))
        first = next(event for event in events if event["label"] != "linear probe")
        resumed.append(first["done"])
        while moment == 1 and not list((folders[1] / f".reflux/checkpoints/{stage}").glob("[!.]*.pt")):
            time.sleep(0.01)
        next(event for event in events if event["done"] >= first["done"] + images)
        process.kill()
        process.wait()
    assert run_stage(stage, folders[1]).returncode == 0
    assert max(resumed) > 0
    results = [sha256_file(folder / f"artifacts/{stage}/model.safetensors") for folder in folders]
    assert results[0] == results[1], f"killed after {resumed} images"
    assert not list((folders[1] / f".reflux/checkpoints/{stage}").iterdir())


def interrupted(trained: Path, folder: Path) -> tuple[Path, Path]:
    """A workspace whose control was killed, and the checkpoint that it left."""
    shutil.copytree(trained, folder)
    kept = folder / ".reflux/checkpoints/control"
    override_params(["student.steps=100000", "run.checkpoint_every_s=0.01"], folder / "params.yaml")
    process = subprocess.Popen([sys.executable, "-m", "reflux.components.stages.control"], cwd=folder)
    while not list(kept.glob("[!.]*.pt")):
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.wait()
    (checkpoint,) = kept.glob("[!.]*.pt")
    return folder, checkpoint


def test_a_checkpoint_of_other_params_is_never_picked_up(trained: Path, tmp_path: Path):
    folder, old = interrupted(trained, tmp_path / "one")
    override_params(["student.steps=20"], folder / "params.yaml")
    assert run_stage("control", folder).returncode == 0
    assert (
        sha256_file(folder / "artifacts/control/model.safetensors")
        == weights(trained)["artifacts/control/model.safetensors"]
    )
    assert not old.exists()


def test_a_damaged_checkpoint_is_a_sentence(trained: Path, tmp_path: Path):
    folder, old = interrupted(trained, tmp_path / "one")
    old.write_bytes(old.read_bytes()[:1000])
    done = run_stage("control", folder)
    assert done.returncode == 2
    assert f"{old.relative_to(folder)} is not a whole checkpoint" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_folder_that_cannot_be_written_is_a_sentence(tmp_path: Path):
    folder = training_workspace(tmp_path / "one")
    (folder / "artifacts/pretrain").write_text("a file where a folder should be")
    done = run_stage("pretrain", folder)
    assert done.returncode == 2, done.stderr
    assert "artifacts/pretrain" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unknown_teacher_is_a_sentence(tmp_path: Path):
    folder = training_workspace(tmp_path / "one")
    override_params(["pretrain.model=resnet5O"], folder / "params.yaml")
    done = run_stage("pretrain", folder)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "resnet50" in done.stderr
