"""Stages as several processes with gloo on the CPU: on one machine, and on two hosts that are network namespaces."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest

from reflux.components.core.artifacts import sha256_file
from reflux.components.core.contract import STAGES
from reflux.components.core.params.file import override_params
from reflux.components.modalities.image.models.pixel_model import load
from tests.trees import is_alive
from tests.workspaces import make_tiny_project, make_workspace, until

pytestmark = pytest.mark.slow

RECIPE = [
    "pretrain.model=resnet8",
    "pretrain.weights=random",
    "finetune.strategy=full",
    "finetune.image_size=12",
    "finetune.epochs=3",
    "finetune.batch_size=16",
    "finetune.freeze_batch_norm=false",
    "finetune.clip_norm=1.0",
    "student.image_size=12",
    "student.steps=20",
    "student.batch_size=16",
    "student.eval_every=10",
    "student.ema_decay=0.9",
    "student.accumulate=2",
    "run.threads=1",
]
TWO = ["run.launcher=torchrun", "run.nproc_per_node=2"]


def workspace(folder: Path, *overrides: str) -> Path:
    return make_workspace(folder, *RECIPE, *overrides, splits={"train": 0, "val": 1}, count=45)


def environment() -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW", "REFLUX"))}
    return kept | {"REFLUX_EVENTS": "1"}


def run(stage: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", f"reflux.components.stages.{stage}"]
    return subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, check=False)


@pytest.fixture
def start():
    """Starts a stage whose output goes to a file, and leaves none running; what comes ``before`` wraps the command."""
    started: list[subprocess.Popen[str]] = []

    def start(stage: str, folder: Path, *before: str) -> "subprocess.Popen[str]":
        command = [*before, sys.executable, "-m", f"reflux.components.stages.{stage}"]
        with (folder / "output.txt").open("w") as output:
            process = subprocess.Popen(command, cwd=folder, env=environment(), stdout=output, stderr=output)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def processes(launcher: "subprocess.Popen[str]") -> dict[int, psutil.Process]:
    """The processes that the launcher started, by rank."""
    by_rank = {}
    for child in psutil.Process(launcher.pid).children(recursive=True):
        try:
            if rank := child.environ().get("RANK"):
                by_rank[int(rank)] = child
        except psutil.Error:
            continue
    return by_rank


def both(launcher: "subprocess.Popen[str]") -> dict[int, psutil.Process] | None:
    by_rank = processes(launcher)
    return by_rank if len(by_rank) == 2 else None


def wait_for(what, process: "subprocess.Popen[str]", folder: Path, seconds: float = 120):
    deadline = time.monotonic() + seconds
    while not (result := what()):
        assert process.poll() is None, (folder / "output.txt").read_text()
        assert time.monotonic() < deadline, (folder / "output.txt").read_text()
        time.sleep(0.02)
    return result


def comes_on(launcher: "subprocess.Popen[str]", folder: Path) -> None:
    """Waits for a new checkpoint."""
    checkpoints, began = folder / ".reflux/checkpoints/control", time.time()
    wait_for(lambda: [f for f in checkpoints.glob("*.pt") if f.stat().st_mtime > began], launcher, folder)


def lose(launcher: "subprocess.Popen[str]", folder: Path, rank: int) -> None:
    """Kill -9 of one process, and the launcher has noticed."""
    before = (folder / "output.txt").read_text().count("starts again")
    wait_for(lambda: both(launcher), launcher, folder)[rank].kill()
    wait_for(lambda: (folder / "output.txt").read_text().count("starts again") > before, launcher, folder)


def journals(folder: Path) -> list[list[dict]]:
    files = (folder / ".reflux/outbox").glob("*/journal.jsonl")
    return [[json.loads(line) for line in file.read_text().splitlines()] for file in files]


@pytest.mark.long
@pytest.mark.parametrize("stage", ["finetune", "control"])
def test_one_and_two_processes_end_with_the_same_weights(tmp_path: Path, stage: str):
    """To float32's rounding: the sums over a batch are taken in another order, and some twenty steps add it up."""
    one, two = workspace(tmp_path / "one"), workspace(tmp_path / "two", *TWO)
    for folder in (one, two):
        if stage == "finetune":
            assert run("pretrain", folder).returncode == 0
        done = run(stage, folder)
        assert done.returncode == 0, done.stderr
    models = [load(folder / f"artifacts/{stage}/model.safetensors").state_dict() for folder in (one, two)]
    for name, tensor in models[0].items():
        assert np.allclose(tensor, models[1][name], rtol=1e-3, atol=1e-4), name
    tables = [pq.read_table(folder / f"artifacts/{stage}/history.parquet").to_pandas() for folder in (one, two)]
    for column in ("step", "images", "lr", "train_loss", "val_loss", "val_accuracy"):
        assert np.allclose(tables[0][column], tables[1][column], rtol=1e-3, atol=1e-4), column
    journal = [entries for entries in journals(two) if entries[0]["name"] == stage]
    assert len(journal) == 1  # one rank logs
    assert journal[0][-1]["status"] == "FINISHED"
    done_so_far = [json.loads(event)["done"] for event in done.stdout.split("\x1e")[1:]]
    assert done_so_far == sorted(done_so_far)  # one rank shows its progress


@pytest.mark.long
def test_two_processes_label_and_evaluate_as_one(tmp_path: Path):
    one = make_tiny_project(tmp_path / "one")
    for stage in STAGES:
        assert (done := run(stage, one)).returncode == 0, done.stderr
    two = shutil.copytree(one, tmp_path / "two", symlinks=True)
    override_params(TWO, two / "params.yaml")
    for stage in ("label", "evaluate"):
        shutil.rmtree(two / "artifacts" / stage)
        shutil.rmtree(two / ".reflux", ignore_errors=True)
        assert (done := run(stage, two)).returncode == 0, done.stderr
    stored = [sorted((folder / "artifacts/label/store").glob("*")) for folder in (one, two)]
    assert stored[0]
    assert [sha256_file(file) for file in stored[0]] == [sha256_file(file) for file in stored[1]]
    predictions = [
        pq.read_table(folder / "artifacts/evaluate/predictions.parquet").to_pandas() for folder in (one, two)
    ]
    assert predictions[0].drop(columns="shipped_confidence").equals(predictions[1].drop(columns="shipped_confidence"))
    assert np.allclose(predictions[0]["shipped_confidence"], predictions[1]["shipped_confidence"], atol=1e-5)


@pytest.mark.long
def test_lost_processes_start_again_and_cost_no_bit(tmp_path: Path, start):
    """Kill -9 of the process that writes, then of the launcher; the end is that of a run without a kill."""
    longer = ["student.steps=300", "run.checkpoint_every_s=0.05", "run.deterministic=true", "run.max_restarts=2"]
    whole = workspace(tmp_path / "whole", *TWO, *longer)
    killed = workspace(tmp_path / "killed", *TWO, *longer)
    assert run("control", whole).returncode == 0
    launcher = start("control", killed)
    comes_on(launcher, killed)
    lose(launcher, killed, 0)
    comes_on(launcher, killed)
    alive = wait_for(lambda: both(launcher), launcher, killed)
    launcher.kill()
    launcher.wait()
    assert until(lambda: not any(map(is_alive, alive.values())))
    text = (killed / "output.txt").read_text()
    assert "(1 of 2)" in text
    assert "Traceback" not in text
    done = run("control", killed)
    assert done.returncode == 0, done.stderr
    files = [folder / "artifacts/control/model.safetensors" for folder in (whole, killed)]
    assert sha256_file(files[0]) == sha256_file(files[1])
    starts = {entries[0]["tags"]["reflux.journal"] for entries in journals(killed)}
    assert len(starts) == 1  # one run in MLflow


def test_processes_that_are_lost_too_often_end_the_stage(tmp_path: Path, start):
    folder = workspace(tmp_path / "one", *TWO, "student.steps=100000", "run.max_restarts=0")
    launcher = start("control", folder)
    alive = wait_for(lambda: both(launcher), launcher, folder)
    alive[1].send_signal(signal.SIGKILL)
    assert launcher.wait(120) == 128 + signal.SIGKILL
    assert "Error: control's processes were lost 1 time" in (folder / "output.txt").read_text()


def test_a_stop_ends_every_process_and_is_no_failure(tmp_path: Path, start):
    folder = workspace(tmp_path / "one", *TWO, "student.steps=100000")
    launcher = start("control", folder)
    wait_for(lambda: "val_accuracy" in (folder / "output.txt").read_text(), launcher, folder)
    alive = processes(launcher)
    launcher.terminate()
    assert launcher.wait(120) == 130
    assert not any(map(is_alive, alive.values()))
    (journal,) = journals(folder)
    assert journal[-1]["status"] == "KILLED"
    assert "Traceback" not in (folder / "output.txt").read_text()


def test_a_user_error_is_reported_once_and_not_retried(tmp_path: Path):
    folder = workspace(tmp_path / "one", *TWO, "student.batch_size=15")
    done = run("control", folder)
    assert (done.returncode, done.stderr) == (
        2,
        "Error: student.batch_size = 15 can't be shared equally by 2 processes: make it a multiple of 2, or change "
        "run.nproc_per_node or run.nnodes.\n",
    )


def test_more_processes_than_devices_are_a_sentence(tmp_path: Path):
    folder = workspace(tmp_path / "one", "run.device=cpu", "run.launcher=torchrun", "run.nproc_per_node=1000")
    done = run("control", folder)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "run.nproc_per_node = 1000, but this machine has" in done.stderr


def ip(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)


@pytest.fixture
def hosts():
    """Two network namespaces, joined by a cable of which each holds an end: {host: its address}."""
    names = [f"reflux-{os.getpid()}{letter}" for letter in "ab"]
    if shutil.which("ip") is None or ip("netns", "add", names[0]).returncode:
        pytest.skip("`ip netns add` is not possible here: it needs iproute2 and root with CAP_SYS_ADMIN")
    try:
        assert ip("netns", "add", names[1]).returncode == 0
        for name in names:
            ip("-n", name, "link", "set", "lo", "up")
        made = ip("link", "add", "cable", "netns", names[0], "type", "veth", "peer", "name", "cable", "netns", names[1])
        if made.returncode:
            pytest.skip(f"network namespaces can't be joined here: {made.stderr.strip()}")
        for number, name in enumerate(names, start=1):
            ip("-n", name, "addr", "add", f"10.78.0.{number}/24", "dev", "cable")
            assert ip("-n", name, "link", "set", "cable", "up").returncode == 0
        yield {name: f"10.78.0.{number}" for number, name in enumerate(names, start=1)}
    finally:
        for name in names:
            ip("netns", "delete", name)


def world_size(launcher: "subprocess.Popen[str]") -> int:
    """How many processes train together with the one that this launcher started; 0 while none trains."""
    try:
        return int(processes(launcher)[0].environ()["WORLD_SIZE"])
    except (KeyError, psutil.Error):
        return 0


@pytest.mark.long
@pytest.mark.parametrize(("nnodes", "left"), [("1:2", 1), (2, 0)])
def test_two_hosts_train_together_and_survive_one_being_cut_off(
    tmp_path: Path, start, hosts: dict[str, str], nnodes: str | int, left: int
):
    """They share no files. With 1:2 the first goes on alone until the other is back; with 2 it waits."""
    (_, address), (second, _) = hosts.items()
    together = ["run.launcher=torchrun", f"run.nnodes={nnodes}", f"run.rdzv_endpoint={address}:29400"]
    recipe = ["student.steps=1000000", "run.checkpoint_every_s=0.05", "run.lost_after_s=5", "run.max_restarts=1"]
    folders = [workspace(tmp_path / name, *together, *recipe) for name in hosts]
    launchers = [
        start("control", folder, "ip", "netns", "exec", host) for folder, host in zip(folders, hosts, strict=True)
    ]
    try:
        at_first = (launchers[0], folders[0])

        def trains(size: int) -> None:
            wait_for(lambda: world_size(launchers[0]) == size, *at_first)
            comes_on(*at_first)

        trains(2)
        ip("-n", second, "link", "set", "cable", "down")
        if left:
            trains(left)
        else:
            wait_for(lambda: world_size(launchers[0]) == 0, *at_first)
        ip("-n", second, "link", "set", "cable", "up")
        trains(2)
        assert not list((folders[1] / ".reflux").glob("outbox/*"))  # one rank logs
    finally:
        for launcher in launchers:
            launcher.terminate()
    assert [launcher.wait(120) for launcher in launchers] == [130, 130]
    assert len({entries[0]["tags"]["reflux.journal"] for entries in journals(folders[0])}) == 1
