"""Runs one command whose whole process tree ends with the flow, whatever ends the flow.

``python -I -S flows/local/supervise.py PARENT_PID GRACE_S SIGNAL COMMAND …`` (Linux). It starts in milliseconds,
because it imports nothing but the standard library, and it outlives neither its parent nor its own purpose:

- the kernel sends it SIGTERM when the thread that started it is gone (``PR_SET_PDEATHSIG``), even by kill -9;
- orphans of the command are re-parented to it and not to init (``PR_SET_CHILD_SUBREAPER``), so none gets away;
- when it is asked to stop, or its command has ended, every descendant is asked to end, and killed after the grace time.

DVC passes no signal on to the command of a stage, and a process group misses what called setsid: hence the search.
"""

import ctypes
import os
import signal
import sys
import time

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_STOP = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_WATCHED = (*_STOP, signal.SIGCHLD)
_SECONDS_BETWEEN_SWEEPS = 0.05


def supervise(parent: int, grace_s: float, asked_by: int, command: list[str]) -> int:
    """Run ``command`` to its end, or until it is stopped, and leave no process of it behind.

    Args:
        parent: the pid of the process that must be alive for the command to go on.
        grace_s: seconds between the first signal and SIGKILL.
        asked_by: the signal that asks the command itself to end; what it started gets SIGTERM.
        command: the program and its arguments.

    Returns:
        The command's exit code; 128 + the signal's number when a signal ended it.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    if os.getppid() != parent:  # it died before the kernel could be asked for a signal
        return 128 + signal.SIGTERM
    defaults = (*_WATCHED, signal.SIGPIPE)
    try:
        child = os.posix_spawnp(command[0], command, os.environ, setsigmask=(), setsigdef=defaults)
    except OSError as error:
        print(f"ERROR: cannot start {command[0]}: {error.strerror}", file=sys.stderr)
        return 127
    code = None
    while code is None:
        received = signal.sigwait(_WATCHED)
        code = reap().get(child)
        if received in _STOP:
            break
    ended = sweep(grace_s, child, asked_by)
    return ended.get(child, 128 + signal.SIGTERM) if code is None else code


def sweep(grace_s: float, command: int, asked_by: int) -> dict[int, int]:
    """End every descendant of this process: asked at once, asked again at half time, killed after ``grace_s``.

    Args:
        grace_s: seconds until SIGKILL.
        command: the command's pid.
        asked_by: the signal that it is asked by first.

    Returns:
        The exit codes of the direct children that ended.
    """
    began = time.monotonic()
    ended: dict[int, int] = {}
    signaled: set[int] = set()
    insisted = False
    while True:
        ended |= reap()
        alive = descendants(os.getpid())
        if not alive:
            return ended
        waited = time.monotonic() - began
        if waited > grace_s:
            _signal(alive, signal.SIGKILL)
        elif waited > grace_s / 2 and not insisted:
            insisted = True
            _signal(alive, signal.SIGTERM)
        else:
            _signal(alive - signaled - {command}, signal.SIGTERM)
            _signal((alive - signaled) & {command}, asked_by)
        signaled |= alive
        time.sleep(_SECONDS_BETWEEN_SWEEPS)


def reap() -> dict[int, int]:
    """Collect the exit codes of all children that have ended, by pid."""
    ended: dict[int, int] = {}
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if pid == 0:
            return ended
        code = os.waitstatus_to_exitcode(status)
        ended[pid] = code if code >= 0 else 128 - code


def descendants(root: int) -> set[int]:
    """The pids of all living processes below ``root``."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdecimal() and (parent := _parent(entry)) is not None:
            children.setdefault(parent, []).append(int(entry))
    pids: set[int] = set()
    queue = [root]
    while queue:
        below = children.get(queue.pop(), [])
        pids.update(below)
        queue.extend(below)
    return pids


def _parent(pid: str) -> int | None:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            # The name, in parentheses, may itself hold spaces and parentheses.
            state, parent = file.read().rpartition(")")[2].split()[:2]
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if state in "XZ" else int(parent)


def _signal(pids: set[int], number: int) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
            if number != signal.SIGKILL:
                os.kill(pid, signal.SIGCONT)  # a stopped process would not hear it
        except ProcessLookupError:
            pass


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl failed")


if __name__ == "__main__":
    sys.exit(supervise(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]), sys.argv[4:]))
