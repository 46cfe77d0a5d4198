"""Checkpoints of a training run: the state that decides its next step, written in the background."""

import io
import random
import socket
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reflux.components.core.artifacts import atomic, read_json, write_json
from reflux.components.core.errors import UserError
from reflux.components.core.runtime.world import ALONE, World


class Checkpoints:
    """The latest checkpoint of one training run.

    It is kept outside of DVC's outs, which DVC deletes before it runs a stage. Its name holds the key, so that a
    checkpoint of another model, other data, params, code or environment is never loaded.

    Args:
        folder: of this training run alone.
        every_s: seconds between checkpoints, in addition to those that the loop saves at its milestones.
        world: the processes that train; rank 0 alone reads and writes, and broadcasts what it read, so that all resume
            from the same state on machines that share no files.

    Raises:
        UserError: there is a checkpoint, and it is damaged; or the processes are about to train different things.
    """

    def __init__(self, folder: Path, key: str, every_s: float, world: World = ALONE) -> None:
        self.path = folder / f"{key[:16]}.pt"
        self._key, self._every_s, self._world = key, every_s, world
        if world.broadcast(key) != key:
            raise UserError(
                f"{socket.gethostname()} has other code, params, data or packages than the first machine, or another "
                "kind of device: give all machines the same checkout, artifacts/ and environment."
            )
        if world.first:
            for partial in folder.glob(".*"):
                partial.unlink()
        self._written = time.monotonic()
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None
        self.state = world.broadcast(self._read() if world.first else None)
        self._journaled_file = self.path.with_suffix(".json")
        self._journaled: dict[str, Any] = {"journal": None, "steps": {}}
        if self.state and world.first and self._journaled_file.is_file():
            self._journaled = read_json(self._journaled_file)

    @property
    def journal(self) -> str | None:
        """The journal of the interrupted run, which the resumed run continues."""
        return self._journaled["journal"]

    def journaled_step(self, phase: str) -> int:
        """The last step of ``phase`` whose figures are in the journal."""
        return int(self._journaled["steps"].get(phase, 0))

    def begin(self, journal: str) -> None:
        """Record which journal is written, so that a resumed run continues it even before its first figures."""
        self._record({**self._journaled, "journal": journal})

    def mark_journaled(self, phase: str, step: int) -> None:
        """Record that the figures of a step are in the journal, so that a resumed run does not write them again."""
        self._record({**self._journaled, "steps": {**self._journaled["steps"], phase: step}})

    def _record(self, journaled: dict[str, Any]) -> None:
        self._journaled = journaled
        if self._world.first:
            write_json(self._journaled_file, journaled)

    @property
    def images(self) -> int:
        """The number of images that had been trained on at the checkpoint."""
        return int(self.state["images"]) if self.state else 0

    def due(self) -> bool:
        """True once the last checkpoint is ``every_s`` seconds old."""
        return self._world.first and time.monotonic() - self._written >= self._every_s

    def save(self, state: dict[str, Any]) -> None:
        """Copy ``state`` now and write it in another thread; wait while the previous one is still being written.

        Raises:
            UserError: the previous one could not be written (the disk is full); the last one on disk is still whole.
        """
        if not self._world.first:
            return
        self.wait()
        self._written = time.monotonic()
        self._writing = self._writer.submit(self._write, _copied({"key": self._key, **state}))

    def wait(self) -> None:
        """Wait until the last checkpoint is on disk.

        Raises:
            UserError: it could not be written.
        """
        if self._writing is not None:
            self._writing.result()
            self._writing = None

    def clear(self) -> None:
        """Delete the checkpoints of a training run that has ended."""
        self._writer.shutdown()  # a failed last write no longer matters
        self.state = None
        if not self._world.first:
            return
        for file in self.path.parent.glob("*.*"):
            file.unlink()

    def _write(self, state: dict[str, Any]) -> None:
        content = io.BytesIO()
        torch.save(state, content)
        # Through memory: torch's own writer hides the error of the disk.
        with atomic(self.path) as temporary:
            temporary.write_bytes(content.getbuffer())
        for other in self.path.parent.glob("[!.]*"):
            if other.stem != self.path.stem:
                other.unlink()

    def _read(self) -> dict[str, Any] | None:
        if not self.path.is_file():
            return None
        try:
            state: dict[str, Any] = torch.load(self.path, map_location="cpu", weights_only=True)
        except Exception:  # torch raises what its readers raise: RuntimeError, EOFError, UnpicklingError …
            raise UserError(
                f"{self.path} is not a whole checkpoint: delete it and run again, from the start."
            ) from None
        if not isinstance(state, dict) or state.get("key") != self._key:
            raise UserError(
                f"{self.path} is the checkpoint of another model, data version or recipe: delete it and run again."
            )
        return state


def random_states() -> dict[str, Any]:
    """The states of all random generators that a network may draw from."""
    name, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)  # noqa: NPY002 - libraries draw from it
    return {
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(np.asarray(keys, np.int64)), position, has_gauss, gauss),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_states(states: dict[str, Any]) -> None:
    """Restore all random generators from :func:`random_states`."""
    random.setstate(states["python"])
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(states["torch"])
    if torch.cuda.is_available() and states["cuda"]:
        torch.cuda.set_rng_state_all(states["cuda"])


def _copied(value: Any) -> Any:
    """Copy every tensor of a nested value to the CPU, so that training may go on."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_copied(item) for item in value)
    return value
