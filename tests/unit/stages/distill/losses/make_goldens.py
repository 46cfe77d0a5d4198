"""Write goldens.json: values of torchdistill's losses that ours must give.

    python tests/unit/stages/distill/losses/make_goldens.py

A test computes them anew and compares: the extra ``dev`` brings torchdistill.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

GOLDENS = Path(__file__).with_name("goldens.json")
LABELS = torch.tensor([1, 0, 4, 2, 2, 3])
OTHERS = torch.tensor([[7, 3, 0], [1, 1, 9], [2, 8, 5], [0, 6, 4], [9, 3, 3], [5, 2, 7]])
INDICES = torch.tensor([3, 1, 8, 0, 6, 9])
# of torchdistill's Contrast and ours: embeddings, rows and images drawn
DIM, NEGATIVES, IMAGES, TEMPERATURE, MOMENTUM = 4, 3, 10, 0.07, 0.5


def numbers(seed: int, *shape: int) -> Tensor:
    """Numbers between -3 and 3 that look random and need no generator."""
    count = torch.arange(torch.Size(shape).numel(), dtype=torch.float64)
    scattered = 43758.5453 * torch.sin(12.9898 * count + 78.233 * (seed + 1))
    return (6 * (scattered - scattered.floor()) - 3).float().view(shape)


def filled(module: nn.Module, seed: int) -> nn.Module:
    """The module with the same weights in whatever class has them in the same order."""
    with torch.no_grad():
        for place, parameter in enumerate(module.parameters()):
            parameter.copy_(numbers(seed + place, *parameter.shape) / 3)
    return module


def made() -> dict[str, Any]:
    """Every golden value, by torchdistill."""
    from torchdistill.losses import mid_level as theirs
    from torchdistill.models.wrapper import AttentionBasedFusion

    class Crd(theirs.CRDLoss):  # its alias table reads attributes that it never sets, so that it cannot be built
        def init_prob_alias(self, probs: Tensor) -> None:
            self.probs = self.alias = torch.zeros(1)

    both = {"student_module_path": "o", "student_module_io": "o", "teacher_module_path": "o", "teacher_module_io": "o"}
    paths = {"student_output_path": "o", "teacher_output_path": "o"}

    def value(loss: nn.Module, student: Any, teacher: Any) -> float:
        ins = {"o": {"o": student, "output": student}}, {"o": {"o": teacher, "output": teacher}}
        return loss(*ins, LABELS).item()

    logits, maps, embeddings = ((numbers(0, *s), numbers(1, *s)) for s in ((6, 5), (6, 4, 8, 8), (6, 7)))
    pair = {side: {"path": "o", "io": "o"} for side in ("student", "teacher")}
    goldens: dict[str, Any] = {
        "kd": value(theirs.KDLoss(**both, temperature=4.0, alpha=0.25), *logits),
        "standardized_kd": value(theirs.LogitStdKDLoss(**both, temperature=2.0, alpha=0.25, beta=9.0), *logits),
        "dist": value(theirs.DISTLoss(**both, beta=1.0, gamma=2.0, tau=4.0), *logits),
        "attention_transfer": value(theirs.ATLoss({"only": pair}), *maps),
        "similarity_preserving": value(theirs.SPKDLoss(**paths, reduction="batchmean"), *maps),
        "rkd_distance": value(theirs.RKDLoss(**paths, dist_factor=1.0, angle_factor=0, reduction="mean"), *embeddings),
        "rkd_angle": value(theirs.RKDLoss(**paths, dist_factor=0, angle_factor=1.0, reduction="mean"), *embeddings),
        "hcl": value(theirs.HierarchicalContextLoss(**both), (maps[0], None), maps[1]),
    }
    fusion = filled(AttentionBasedFusion(4, 6, 5, uses_attention=True), 2)
    goldens["fusion"] = [out.square().mean().item() for out in fusion(maps[0], numbers(3, 6, 6, 4, 4), 8)]

    crd = Crd("n", "e", "n", DIM, IMAGES, NEGATIVES, IMAGES, TEMPERATURE, MOMENTUM)
    crd.memory_v1.copy_(F.normalize(numbers(4, IMAGES, DIM)))
    crd.memory_v2.copy_(F.normalize(numbers(5, IMAGES, DIM)))
    chosen = {"pos_idx": INDICES, "contrast_idx": torch.cat([INDICES[:, None], OTHERS], 1)}
    crd_steps = []
    for step in range(2):
        student, teacher = (F.normalize(numbers(seed + step, 6, DIM)) for seed in (6, 8))
        ins = {"n": {"output": student}, "e": {"input": chosen}}, {"n": {"output": teacher}}
        crd_steps.append(crd(*ins).item())
    goldens["crd"] = {"steps": crd_steps, "z": crd.params[2:4].tolist(), "bank": crd.memory_v1[3].tolist()}
    return goldens


if __name__ == "__main__":
    GOLDENS.write_text(json.dumps(made(), indent=2) + "\n", encoding="utf-8")
    sys.stdout.write(f"Written: {GOLDENS}\n")
