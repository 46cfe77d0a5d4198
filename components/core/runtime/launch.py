"""Starts a stage as several processes, on one machine or several, through torch's own elastic launcher."""

import ctypes
import logging
import os
import signal
import socket
import sys
import tempfile
import time
import uuid
import warnings
from pathlib import Path
from typing import Any

import psutil

from components.core.artifacts import read_json, write_json
from components.core.errors import UserError
from components.core.params.sections import Run

_SENTENCE_VARIABLE = "REFLUX_SENTENCE"
_LAUNCHER_VARIABLE = "REFLUX_LAUNCHER"
_PR_SET_PDEATHSIG = 1
_SECONDS_TO_RETURN = 600.0  # as long as torch's launcher waits for machines to join


class Ended(Exception):
    """One of the processes says that another try would end as it did."""


def in_rank() -> bool:
    """Whether this is one of the processes that the launcher started."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def rank() -> int:
    """This process's number among them; 0 where it is alone."""
    return int(os.environ["RANK"]) if in_rank() else 0


def follow(stage: str, run: Run) -> None:
    """Be one of several: the first alone talks, and all end with their launcher.

    Even by kill -9, so that nobody trains on beside those whom the next launcher starts.
    """
    if rank():
        logging.disable(logging.WARNING)
        warnings.simplefilter("ignore")
    elif restarts := int(os.environ["TORCHELASTIC_RESTART_COUNT"]):
        print(f"Warning: {stage} starts again ({restarts} of {run.max_restarts}).", file=sys.stderr)
    launcher = os.environ.get(_LAUNCHER_VARIABLE)
    if launcher is None:  # torch's own command started it
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != int(launcher):  # it died before the kernel was asked to tell us
        raise KeyboardInterrupt


def tell(sentence: str) -> None:
    """Tell the launcher what the user has to mend, so that it says it once and does not try again."""
    file = os.environ.get(_SENTENCE_VARIABLE)
    if file is None:
        print(f"Error: {sentence}", file=sys.stderr)
    else:
        write_json(Path(file), sentence)


def launch(stage: str, run: Run) -> int:
    """Run a stage's processes to their end.

    A process that is lost takes the others with it; all start again, up to ``run.max_restarts`` times, and go on from
    the last checkpoint. Several machines meet at ``run.rdzv_endpoint``. One that can't reach it any more tries for ten
    minutes to come back; the others wait for it as long, or go on without it where ``run.nnodes`` allows fewer.

    Returns:
        The exit code of the stage.

    Raises:
        UserError: the params ask for what this machine does not have, or a process ended with a sentence for the user.
    """
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.rendezvous import RendezvousClosedError, RendezvousError, RendezvousTimeoutError

    # What torch says at length, a lost process's own words and ours say in one sentence.
    logging.disable(logging.CRITICAL)
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    processes = processes_here(run)
    # Else processes that start again find the addresses of those before them (torch 2.13).
    os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        sentence = Path(folder) / "sentence.json"
        os.environ |= {_SENTENCE_VARIABLE: str(sentence), _LAUNCHER_VARIABLE: str(os.getpid())}
        deadline = time.monotonic() + _SECONDS_TO_RETURN
        while True:
            began = time.monotonic()
            try:
                return _run_agent(stage, run, processes, sentence)
            except Ended:
                raise UserError(read_json(sentence)) from None
            except SignalException:
                raise KeyboardInterrupt from None
            except RendezvousClosedError:
                print(f"Error: {stage} has ended on another machine: its output says why.", file=sys.stderr)
                return 1
            except RendezvousTimeoutError:
                raise UserError(
                    f"{_nodes(run)[0]} machines did not meet at run.rdzv_endpoint = {run.rdzv_endpoint} in time: start "
                    f"`python -m components.{stage}` on each of them, with the same params."
                ) from None
            except RendezvousError:
                now = time.monotonic()
                if now - began > _SECONDS_TO_RETURN / 10:  # it was there for a while: the time starts anew
                    deadline = now + _SECONDS_TO_RETURN
                if now > deadline:
                    raise UserError(
                        f"No machine answers at run.rdzv_endpoint = {run.rdzv_endpoint}: start the stage on the "
                        "machine of that address too, and let the others reach it."
                    ) from None
                print(f"Warning: run.rdzv_endpoint = {run.rdzv_endpoint} is out of reach; trying on.", file=sys.stderr)
                time.sleep(1)


def processes_here(run: Run) -> int:
    """The number of processes on this machine.

    Raises:
        UserError: there are more than devices, which are GPUs or CPU cores.
    """
    import torch

    cuda = run.device != "cpu" and torch.cuda.is_available()
    devices = torch.cuda.device_count() if cuda else len(os.sched_getaffinity(0))
    if run.nproc_per_node == "auto":
        return devices if cuda else 1
    wanted = int(run.nproc_per_node)
    if wanted > devices:
        what = "CUDA devices" if cuda else "CPU cores"
        raise UserError(f"run.nproc_per_node = {wanted}, but this machine has {devices} {what}: lower it to {devices}.")
    return wanted


def _nodes(run: Run) -> tuple[int, int]:
    fewest, _, most = str(run.nnodes).partition(":")
    return int(fewest), int(most or fewest)


def _run_agent(stage: str, run: Run, processes: int, sentence: Path) -> int:
    from torch.distributed.elastic.agent.server.api import RunResult, WorkerGroup, WorkerSpec
    from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
    from torch.distributed.elastic.rendezvous import RendezvousParameters
    from torch.distributed.elastic.rendezvous.registry import get_rendezvous_handler

    class Agent(LocalElasticAgent):
        """Torch's agent, which starts lost processes again, unless one of them says that it is of no use."""

        def _monitor_workers(self, worker_group: WorkerGroup) -> RunResult:
            result = super()._monitor_workers(worker_group)
            if sentence.exists():
                raise Ended
            return result

    fewest, most = _nodes(run)
    address, configs = _meeting_point(run)
    # Else gloo looks its own name up, which may lead to another network or to none.
    for card in (name for name, own in psutil.net_if_addrs().items() if address in {each.address for each in own}):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", card)
    handler = get_rendezvous_handler(
        RendezvousParameters(
            backend="c10d",
            endpoint=run.rdzv_endpoint or "127.0.0.1:0",
            run_id=f"reflux-{stage}" if most > 1 else uuid.uuid4().hex,
            min_nodes=fewest,
            max_nodes=most,
            local_addr=address,
            **configs,
        )
    )
    spec = WorkerSpec(
        role=stage,
        local_world_size=processes,
        entrypoint=sys.executable,
        args=("-m", f"components.{stage}"),
        rdzv_handler=handler,
        max_restarts=run.max_restarts,
        monitor_interval=0.1,
        local_addr=address,
    )
    try:
        result = Agent(spec, DefaultLogsSpecs(), exit_barrier_timeout=run.lost_after_s).run()
    except Ended:
        handler.shutdown()  # for all machines; where this one alone is stopped or cut off, the others may go on
        raise
    handler.shutdown()
    if not result.is_failed():
        return 0
    last = min(result.failures.values(), key=lambda failure: failure.timestamp)
    print(f"Error: {stage}'s processes were lost {run.max_restarts + 1} times.", file=sys.stderr)
    return last.exitcode if last.exitcode > 0 else 128 - last.exitcode


def _meeting_point(run: Run) -> tuple[str, dict[str, Any]]:
    """This machine's address as the others see it, and how torch's rendezvous is set up."""
    if run.rdzv_endpoint is None:
        return "127.0.0.1", {"is_host": True}
    host, _, port = run.rdzv_endpoint.rpartition(":")
    wait = int(max(1, min(60, run.lost_after_s)))
    configs = {"read_timeout": wait, "last_call_timeout": min(30, wait)}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((host, int(port)))  # sends nothing, but chooses the way
            mine, there = probe.getsockname()[0], probe.getpeername()[0]
        except OSError:
            return socket.gethostname(), {**configs, "is_host": False}
    return mine, {**configs, "is_host": mine == there}
