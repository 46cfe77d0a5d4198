import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from reflux.components.core.data import processes
from reflux.components.core.data.processes import share_out
from reflux.components.core.errors import UserError


@pytest.fixture
def shared(monkeypatch):
    """Nothing is too little to be shared."""
    monkeypatch.setattr(processes, "_SECONDS_ALONE", 0.0)
    monkeypatch.setattr(processes, "_WORTH_SHARING_S", 0.0)


def squared(number: int) -> tuple[int, int]:
    time.sleep(0.001)
    return number**2, os.getpid()


def killed(number: int) -> int:
    if number:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def refused(number: int) -> int:
    if number == 5:
        raise OSError("no room")
    return number


def test_little_work_stays_in_this_process() -> None:
    assert list(share_out(squared, range(20), 20, 3)) == [(number**2, os.getpid()) for number in range(20)]


def test_one_process_never_starts_another(shared) -> None:
    assert {pid for _, pid in share_out(squared, range(20), 20, 1)} == {os.getpid()}


def test_what_is_left_goes_to_several_processes_and_comes_back_in_order(shared) -> None:
    results = list(share_out(squared, range(400), 400, 2))
    assert [result for result, _ in results] == [number**2 for number in range(400)]
    assert len({pid for _, pid in results}) == 3


def test_parts_are_asked_for_as_they_are_needed(shared) -> None:
    asked = []

    def parts() -> Iterator[int]:
        for number in range(100):
            asked.append(number)
            yield number

    results = share_out(squared, parts(), 100, 2)
    assert [next(results)[0] for _ in range(2)] == [0, 1]
    assert len(asked) <= 10
    results.close()
    assert not [thread for thread in threading.enumerate() if "QueueManager" in thread.name]


def test_a_killed_process_is_a_sentence_and_an_error_comes_through(shared) -> None:
    with pytest.raises(UserError, match=r"A process that decodes images was killed.*set run\.threads to 1"):
        list(share_out(killed, range(9), 9, 2))
    with pytest.raises(OSError, match="no room"):
        list(share_out(refused, range(9), 9, 2))
