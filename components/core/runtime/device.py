"""The device and the CPU threads of a stage: DVC runs no stage again when they change."""

import os
import resource
from contextlib import suppress

import torch

from reflux.components.core.errors import UserError

THREADS_VARIABLE = "REFLUX_THREADS"


def resolve_device(choice: str, threads: int, deterministic: bool) -> torch.device:
    """Resolve ``run.device``, and set CPU threads and determinism.

    Args:
        choice: auto, cpu or cuda.
        threads: CPU threads; 0 takes the flow's share (two stages at the same time halve the cores) or torch's default.
        deterministic: the same result to the bit on every run on the same hardware. Threads move the bits, and a share
            depends on what else has to run, so that 0 is torch's default.

    Raises:
        UserError: CUDA is set and there is none.
    """
    share = threads or (0 if deterministic else int(os.environ.get(THREADS_VARIABLE) or 0))
    processes = int(os.environ.get("LOCAL_WORLD_SIZE") or 1)  # those of this machine share the threads
    if share or processes > 1:
        torch.set_num_threads(max(1, (share or torch.get_num_threads()) // processes))
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
    """The peak memory of this process in MB, and the utilization of the GPU in percent where the driver reports it."""
    if device.type != "cuda":
        return {"memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}
    figures = {"memory_mb": torch.cuda.max_memory_allocated(device) / 2**20}
    with suppress(ModuleNotFoundError, RuntimeError):  # nvidia-ml-py is not installed, or the driver reports nothing
        figures["gpu_percent"] = float(torch.cuda.utilization(device))
    return figures
