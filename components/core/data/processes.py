"""Processes that decode images: small ones are decoded mostly in Python, where threads wait for each other."""

import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from os import _exit
from typing import TypeVar

from reflux.components.core.errors import UserError

# Before that the pace is not known: the first part imports what decodes.
_SECONDS_ALONE = 0.5
# Two processes take nearly a second to start and to import, and then half as long for the rest as one.
_WORTH_SHARING_S = 2.0
_PARTS_AHEAD = 4
Part = TypeVar("Part")
Result = TypeVar("Result")


def decoding_processes(count: int) -> ProcessPoolExecutor:
    """A pool of processes that end with this one, however it ends, and leave Ctrl-C to it."""
    # Spawned, not forked: a copy of a process with threads may hold a lock that is never released.
    return ProcessPoolExecutor(count, mp_context=get_context("spawn"), initializer=_begin)


def share_out(work: Callable[[Part], Result], parts: Iterable[Part], count: int, processes: int) -> Iterator[Result]:
    """Do some work on each part: in this process, or in several as soon as what is left would take it seconds.

    Args:
        work: a function at a module's head, or a ``partial`` of one.
        parts: of which only a few are asked for ahead.
        count: of the parts.
        processes: that work at the same time.

    Yields:
        The results in the order of the parts.

    Raises:
        UserError: a process was killed.
    """
    rest, began = iter(parts), time.monotonic()
    for done, part in enumerate(rest, 1):
        yield work(part)
        seconds = time.monotonic() - began
        left = seconds / done * (count - done)
        if processes > 1 and seconds >= _SECONDS_ALONE and left >= _WORTH_SHARING_S:
            break
    else:
        return
    waiting: deque[Future[Result]] = deque()
    with decoding_processes(processes) as pool:
        try:
            for part in rest:
                waiting.append(pool.submit(work, part))
                if len(waiting) >= processes * _PARTS_AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool:
            raise UserError(
                "A process that decodes images was killed, perhaps for lack of memory: free some, or set "
                "run.threads to 1, and run again."
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)


def _begin() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()
    assert parent is not None  # noqa: S101 - a worker always has one
    threading.Thread(target=_end_after, args=(parent.join,), daemon=True).start()


def _end_after(wait: Callable[[], None]) -> None:
    wait()
    _exit(1)
