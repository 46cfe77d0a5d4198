"""Which device computes, with how many threads and in which precision: none of it changes a cache key."""

import os
import resource
from contextlib import suppress

import torch

from components.core.errors import UserError

THREADS_VARIABLE = "REFLUX_THREADS"


def resolve_device(choice: str, threads: int, deterministic: bool) -> torch.device:
    """The device for ``run.device``, with CPU threads and determinism set.

    Args:
        choice: auto, cpu or cuda.
        threads: CPU threads; 0 takes the flow's share (stages that run side by side halve the cores) or torch's own.
        deterministic: the same result to the bit on every run on the same hardware.

    Raises:
        UserError: CUDA is asked for and there is none.
    """
    share = threads or int(os.environ.get(THREADS_VARIABLE) or 0)
    beside = int(os.environ.get("LOCAL_WORLD_SIZE") or 1)  # processes that the launcher started here share the threads
    if share or beside > 1:
        torch.set_num_threads(max(1, (share or torch.get_num_threads()) // beside))
    if choice == "cuda" and not torch.cuda.is_available():
        raise UserError("run.device = cuda, but torch sees no CUDA device here: set run.device to auto or cpu.")
    cuda = choice != "cpu" and torch.cuda.is_available()
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    elif cuda:
        torch.backends.cudnn.benchmark = True
    return torch.device("cuda" if cuda else "cpu")


def usage(device: torch.device) -> dict[str, float]:
    """What a training takes of the machine: its largest memory in MB, and the GPU's use in percent where it is told."""
    if device.type != "cuda":
        return {"memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}
    found = {"memory_mb": torch.cuda.max_memory_allocated(device) / 2**20}
    with suppress(ModuleNotFoundError, RuntimeError):  # nvidia-ml-py is not installed, or the driver does not tell
        found["gpu_percent"] = float(torch.cuda.utilization(device))
    return found
