"""`reflux run` with each strategy of fine-tuning, each way to pretrain, and what follows from them: a decision each."""

import shutil
from pathlib import Path

import pytest

from reflux.components.core.artifacts import read_json
from tests.e2e.command import reflux

pytestmark = pytest.mark.long

VIT = ("pretrain.model=test_vit", "finetune.image_size=160")
STRATEGIES = {
    "feature-extraction": ("finetune.probe_steps=30",),
    "full": ("finetune.l2_sp=0.01",),
    "lp-ft": ("finetune.probe_steps=30",),
    "gradual-unfreezing": ("finetune.freeze_batch_norm=true",),
    "lora": (*VIT, "finetune.freeze_batch_norm=true", "finetune.epochs=1", "finetune.lora_rank=2"),
}
LEARNED = ("pretrain.mode=self-supervised", "pretrain.learns=both", "pretrain.steps=20", "pretrain.batch_size=32")
OTHERS = (
    ("finetune.strategy=none", "pretrain.weights=finished.safetensors"),
    LEARNED,
    ("finetune.rounds=2", "finetune.round_epochs=2"),
    ("student.weights=distilled-features", "distill.finish=labels"),
)


def test_each_strategy_and_each_way_to_pretrain_ends_in_a_decision(tmp_path: Path, tiny_project):
    project = tiny_project(tmp_path / "project")
    params = project / "params.yaml"
    before = params.read_bytes()
    cases = [(f"finetune.strategy={name}", *settings) for name, settings in STRATEGIES.items()]
    for number, case in enumerate([*cases, *OTHERS], 1):
        params.write_bytes(before)
        done = reflux(project, "run", *(word for assignment in case for word in ("-S", assignment)))
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"shapes-student version {number} is" in done.stdout, case
        decision = read_json(project / "artifacts/promote/decision.json")
        assert decision["version"] == number
        if number == 1:
            shutil.copy(project / "artifacts/finetune/model.safetensors", project / "finished.safetensors")
