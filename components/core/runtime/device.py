"""Which device computes, with how many threads and in which precision: none of it changes a cache key."""

import os
import resource
from contextlib import AbstractContextManager, suppress

import torch

from components.core.errors import UserError

THREADS_VARIABLE = "REFLUX_THREADS"


def pick(choice: str, threads: int, deterministic: bool) -> torch.device:
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


def autocast(device: torch.device, training: bool, precision: str = "auto") -> AbstractContextManager[None]:
    """The precision that a network is computed in.

    On CPUs bfloat16 pays for the teacher's inference: a student with a live teacher learns from 2,545 images/s with it,
    from 1,857 without. In training it depends on the network: 15,290 against 12,430 images/s for resnet8_slim, 782
    against 464 for resnet8x4 (``live``, ``live_fp32``, ``bare_bf16`` and ``bare`` of ``make bench``, on an EPYC with
    AVX-512 BF16).
    ``auto`` trains in fp32 there: its result is not to depend on the CPU's model.

    Args:
        device: where.
        training: whether gradients are wanted.
        precision: fp32, bf16, or auto: bfloat16 where the hardware has it, but for training on CPUs.
    """
    if device.type == "cuda":
        has_it = torch.cuda.is_bf16_supported()
    else:
        capabilities = torch.cpu.get_capabilities()
        has_it = not training and bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    return torch.autocast(device.type, torch.bfloat16, enabled=has_it if precision == "auto" else precision == "bf16")
