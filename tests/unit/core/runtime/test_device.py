from collections.abc import Iterator

import pytest
import torch

from reflux.components.core.runtime.device import THREADS_VARIABLE, resolve_device


@pytest.fixture(autouse=True)
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize(
    ("threads", "deterministic", "expected"), [(0, False, 1), (0, True, 3), (2, False, 2), (2, True, 2)]
)
def test_the_same_bits_need_as_many_threads_whatever_else_runs(
    monkeypatch: pytest.MonkeyPatch, threads: int, deterministic: bool, expected: int
):
    monkeypatch.setenv(THREADS_VARIABLE, "1")
    resolve_device("cpu", threads, deterministic)
    assert torch.get_num_threads() == expected
    assert torch.are_deterministic_algorithms_enabled() == deterministic
