"""Run a stage as several processes, on one machine or several, through torch's elastic launcher."""

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

from reflux.components.core.artifacts import read_json, write_json
from reflux.components.core.errors import UserError
from reflux.components.core.params.run import Run

_SENTENCE_VARIABLE = "REFLUX_SENTENCE"
_LAUNCHER_VARIABLE = "REFLUX_LAUNCHER"
_PR_SET_PDEATHSIG = 1
_SECONDS_TO_RETURN = 600.0  # as long as torch's launcher waits for machines to join


class UserErrorInWorker(Exception):
    """A worker ended with an error that only the user can fix, so that a restart would end alike."""


def in_rank() -> bool:
    """True in a process that the launcher started."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def rank() -> int:
    """The rank of this process; 0 if it is the only one."""
    return int(os.environ["RANK"]) if in_rank() else 0


def set_up_worker(stage: str) -> None:
    """Set this process up as a worker: only rank 0 logs, and all end with the launcher.

    They end even if the launcher is killed by kill -9, so that none goes on training next to the next launcher's.
    """
    if rank():
        logging.disable(logging.WARNING)
        warnings.simplefilter("ignore")
    elif restarts := int(os.environ["TORCHELASTIC_RESTART_COUNT"]):
        allowed = os.environ["TORCHELASTIC_MAX_RESTARTS"]
        print(f"Warning: {stage} starts again ({restarts} of {allowed}).", file=sys.stderr)
    launcher = os.environ.get(_LAUNCHER_VARIABLE)
    if launcher is None:  # started by torchrun itself
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != int(launcher):  # it died before prctl was called
        raise KeyboardInterrupt


def report_user_error(sentence: str) -> None:
    """Pass a user error to the launcher, which prints it once and does not restart the processes."""
    file = os.environ.get(_SENTENCE_VARIABLE)
    if file is None:
        print(f"Error: {sentence}", file=sys.stderr)
    else:
        write_json(Path(file), sentence)


def launch(stage: str, run: Run) -> int:
    """Run a stage's processes to their end.

    When one process is lost, all restart from the last checkpoint, up to ``run.max_restarts`` times. Several machines
    meet at ``run.rdzv_endpoint``. A machine that loses contact tries for ten minutes to come back; the others wait as
    long, or continue without it if ``run.nnodes`` allows fewer.

    Returns:
        The exit code of the stage.

    Raises:
        UserError: this machine lacks what the params ask for, or a worker ended with a user error.
    """
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.rendezvous import RendezvousClosedError, RendezvousError, RendezvousTimeoutError

    # The lost process's own message and ours say in one sentence what torch logs at length.
    logging.disable(logging.CRITICAL)
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    processes = processes_here(run)
    # Otherwise restarted processes find the addresses of their predecessors (torch 2.13).
    os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        sentence = Path(folder) / "sentence.json"
        os.environ |= {_SENTENCE_VARIABLE: str(sentence), _LAUNCHER_VARIABLE: str(os.getpid())}
        deadline = time.monotonic() + _SECONDS_TO_RETURN
        while True:
            began = time.monotonic()
            try:
                return _run_agent(stage, run, processes, sentence)
            except UserErrorInWorker:
                raise UserError(read_json(sentence)) from None
            except SignalException:
                raise KeyboardInterrupt from None
            except RendezvousClosedError:
                print(f"Error: {stage} has ended on another machine: its output says why.", file=sys.stderr)
                return 1
            except RendezvousTimeoutError:
                raise UserError(
                    f"{_nodes(run)[0]} machines did not meet at run.rdzv_endpoint = {run.rdzv_endpoint} in time: start "
                    f"`python -m reflux.components.stages.{stage}` on each of them, with the same params."
                ) from None
            except RendezvousError:
                now = time.monotonic()
                if now - began > _SECONDS_TO_RETURN / 10:  # it was connected for a while: restart the clock
                    deadline = now + _SECONDS_TO_RETURN
                if now > deadline:
                    raise UserError(
                        f"No machine answers at run.rdzv_endpoint = {run.rdzv_endpoint}: start the stage on the "
                        "machine of that address too, and let the others reach it."
                    ) from None
                endpoint = f"run.rdzv_endpoint = {run.rdzv_endpoint}"
                print(f"Warning: {endpoint} can't be reached; trying again.", file=sys.stderr)
                time.sleep(1)


def processes_here(run: Run) -> int:
    """The number of processes to start on this machine.

    Raises:
        UserError: it exceeds the number of devices, which are GPUs or CPU cores.
    """
    import torch

    cuda = run.device != "cpu" and torch.cuda.is_available()
    devices = torch.cuda.device_count() if cuda else len(os.sched_getaffinity(0))
    if run.nproc_per_node == "auto":
        return devices if cuda else 1
    wanted = int(run.nproc_per_node)
    if wanted > devices:
        kind = "CUDA devices" if cuda else "CPU cores"
        raise UserError(f"run.nproc_per_node = {wanted}, but this machine has {devices} {kind}: lower it to {devices}.")
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
        """Torch's agent, which restarts lost processes, unless a worker ended with a user error."""

        def _monitor_workers(self, worker_group: WorkerGroup) -> RunResult:
            result = super()._monitor_workers(worker_group)
            if sentence.exists():
                raise UserErrorInWorker
            return result

    fewest, most = _nodes(run)
    address, configs = _meeting_point(run)
    # Otherwise gloo resolves the host's name, which may lead to another network or to none.
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
        args=("-m", f"reflux.components.stages.{stage}"),
        rdzv_handler=handler,
        max_restarts=run.max_restarts,
        monitor_interval=0.1,
        local_addr=address,
    )
    try:
        result = Agent(spec, DefaultLogsSpecs(), exit_barrier_timeout=run.lost_after_s).run()
    except UserErrorInWorker:
        handler.shutdown()  # for all machines; if only this one is stopped or cut off, the others may continue
        raise
    handler.shutdown()
    if not result.is_failed():
        return 0
    last = min(result.failures.values(), key=lambda failure: failure.timestamp)
    print(f"Error: {stage}'s processes were lost {run.max_restarts + 1} times.", file=sys.stderr)
    return last.exitcode if last.exitcode > 0 else 128 - last.exitcode


def _meeting_point(run: Run) -> tuple[str, dict[str, Any]]:
    """This machine's address as the others see it, and the settings of torch's rendezvous."""
    if run.rdzv_endpoint is None:
        return "127.0.0.1", {"is_host": True}
    host, _, port = run.rdzv_endpoint.rpartition(":")
    wait = int(max(1, min(60, run.lost_after_s)))
    configs = {"read_timeout": wait, "last_call_timeout": min(30, wait)}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((host, int(port)))  # sends nothing, but selects the network interface
            mine, there = probe.getsockname()[0], probe.getpeername()[0]
        except OSError:
            return socket.gethostname(), {**configs, "is_host": False}
    return mine, {**configs, "is_host": mine == there}
