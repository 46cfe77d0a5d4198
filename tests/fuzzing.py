"""Inputs that were made to break a reader, and what it may answer: a result, or one sentence."""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reflux.components.core.errors import UserError

SHORT = 60
LONGEST_SENTENCE = 1500

# A test takes ``examples``: the same few in each run, and other ones each night.
examples = pytest.mark.parametrize(
    "examples", [pytest.param(SHORT, id="short"), pytest.param(3_000, id="long", marks=pytest.mark.long)]
)


def search(check: Callable[..., None], examples: int, *strategies: st.SearchStrategy[Any]) -> None:
    """Look for an input that fails a check."""
    profile = settings(
        max_examples=examples, derandomize=examples == SHORT, suppress_health_check=list(HealthCheck), print_blob=True
    )
    profile(given(*strategies)(check))()


@contextmanager
def one_sentence() -> Iterator[None]:
    """Let what is refused pass if the refusal is one sentence, printable and of a length that a person reads."""
    try:
        yield
    except UserError as error:
        assert re.fullmatch(rf".{{10,{LONGEST_SENTENCE}}}[.?]", str(error)), str(error)


@contextmanager
def at_most(megabytes: int) -> Iterator[None]:
    """Fail if the process takes more memory than it had."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = _peak_kb()
    yield
    assert _peak_kb() - before < megabytes * 1024


def _peak_kb() -> int:
    found = re.search(r"^VmHWM:\s+(\d+)", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1])


@st.composite
def damaged(
    draw: st.DrawFn,
    whole: Sequence[bytes],
    words: Sequence[bytes] = (b"",),
    others: st.SearchStrategy[bytes] = st.binary(max_size=8),  # noqa: B008 - it has no state
) -> bytes:
    """A file of which parts were written over, cut out, doubled, or replaced by words of its format or other bytes."""
    data = bytearray(draw(st.sampled_from(whole)))
    for _ in range(draw(st.integers(0, 5))):
        begin = draw(st.integers(0, len(data)))
        end = min(len(data), begin + draw(st.sampled_from([0, 1, 2, 4, 8, 64, 100_000])))
        new = draw(st.one_of(st.sampled_from(words), others, st.sampled_from([b"", bytes(data[begin:end]) * 2])))
        if draw(st.booleans()):  # what comes after it stays in its place
            end = min(len(data), begin + len(new))
        data[begin:end] = new
    return bytes(data)
