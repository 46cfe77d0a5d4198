"""Which device computes, with how many threads and in which precision: none of it changes a cache key."""

import os
from contextlib import AbstractContextManager

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


def autocast(device: torch.device, training: bool) -> AbstractContextManager[None]:
    """bfloat16 where the hardware has it.

    On CPUs it always pays for inference: measured on an AVX-512 BF16 EPYC with EfficientNet-Lite0 at 96 pixels, 1,102
    against 495 images/s forward. In training it depends on the network: 104 against 113 images/s for that one, but 24
    against 32 ms of CPU time a step for resnet8_slim and 575 against 1,120 for resnet8x4 (batches of 128, one thread;
    ``python -m benchmarks.throughput`` shows it as ``bare_bf16``). Training stays in fp32 there: its result is not to
    depend on the CPU's model.
    """
    if device.type == "cuda":
        enabled = torch.cuda.is_bf16_supported()
    else:
        capabilities = torch.cpu.get_capabilities()
        enabled = not training and bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)
