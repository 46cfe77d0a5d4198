"""Models and checkpoints on a disk that fills up, which a limit on the size of files stands for."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

BEGIN = """
import resource, signal
from pathlib import Path
import torch
from reflux.components.core.runtime.checkpoint import Checkpoints
from reflux.components.core.errors import UserError
from reflux.components.modalities.image.models.pixel_model import load, pixel_model, save

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

def fill_the_disk():
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
"""
MODEL = """
small = pixel_model("resnet8_slim", ("a", "b"), 16, 1, (0.5,), (0.2,))
fill_the_disk()
try:
    save(small, Path("model.safetensors"))
except UserError as error:
    print(error)
assert not list(Path().iterdir())
"""
CHECKPOINT = """
checkpoints = Checkpoints(Path("kept"), "0" * 64, 60)
checkpoints.save({"images": 3, "weights": torch.zeros(10)})
checkpoints.wait()
fill_the_disk()
checkpoints.save({"images": 9, "weights": torch.zeros(100_000)})
try:
    checkpoints.wait()
except UserError as error:
    print(error)
assert [file.name for file in Path("kept").iterdir()] == ["0" * 16 + ".pt"]
assert Checkpoints(Path("kept"), "0" * 64, 60).images == 3
"""
ENDED = """
checkpoints = Checkpoints(Path("kept"), "0" * 64, 60)
fill_the_disk()
checkpoints.save({"images": 9, "weights": torch.zeros(100_000)})
checkpoints.clear()
assert not list(Path("kept").iterdir())
"""


def run(work: str, folder: Path) -> str:
    program = [sys.executable, "-c", BEGIN + work]
    done = subprocess.run(program, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("work", [MODEL, CHECKPOINT], ids=["model", "checkpoint"])
def test_a_full_disk_is_one_sentence_and_what_was_there_stays(tmp_path: Path, work: str):
    message = run(work, tmp_path)
    assert message.startswith("No space left on the disk to write ")
    assert message.endswith(": free some space and run again.\n")


def test_a_training_that_has_ended_does_not_fail_for_its_last_checkpoint(tmp_path: Path):
    assert run(ENDED, tmp_path) == ""
