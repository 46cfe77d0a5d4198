"""A tree of processes that resist their end, and what is left of it."""

import time
from collections.abc import Callable
from pathlib import Path

import psutil

TREE = """
import os, signal, subprocess, sys, time
marker, stubborn, depth = sys.argv[1], sys.argv[2] == "stubborn", int(sys.argv[3])
if stubborn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
if depth:
    again = [sys.executable, __file__, marker, sys.argv[2], str(depth - 1)]
    subprocess.Popen(again)
    subprocess.Popen(again, start_new_session=True)
    if os.fork() == 0:  # a daemon: its parent ends, so it is orphaned at once
        os.setsid()
        if os.fork() == 0:
            os.execv(sys.executable, again)
        os._exit(0)
else:
    open(f"{marker}.{os.getpid()}", "w").close()
time.sleep(600)
"""
LEAVES = 9  # depth 2, three branches each


def is_alive(process: psutil.Process) -> bool:
    """Whether it has not ended; one that has may be a zombie until init reaps it."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def living(marker: str) -> list[psutil.Process]:
    return [process for process in psutil.process_iter() if marker in command_line(process) and is_alive(process)]


def command_line(process: psutil.Process) -> str:
    """A process's arguments; empty when it has ended."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def until(condition: Callable[[], bool], seconds: float = 120.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def grown(marker: str) -> bool:
    return len(list(Path(marker).parent.glob(f"{Path(marker).name}.*"))) == LEAVES
