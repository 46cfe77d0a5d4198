"""Any text is a params file or one sentence, and nothing is written that can't be read."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st
from ruamel.yaml import YAML

from reflux.components.core.params.file import check_overrides, load_params, override_params
from tests.fuzzing import at_most, damaged, examples, one_sentence, search
from tests.workspaces import ROOT

pytestmark = pytest.mark.timeout(600)

TEXT = re.sub(rb" *#.*", b"", (ROOT / "params.yaml").read_bytes())  # half as long to parse
WORDS = [
    *rb"&a|*a|<<: *a|? |- |{|[|!!python/object:os.system|!!binary |: ".split(b"|"),
    *rb"null|~|.inf|.nan|1e999|0o17|2001-01-01".split(b"|"),
    *rb"&a [*a]|&a {a: *a}|'|\"|\x00|#|%YAML 9.9".split(b"|"),
    *(b"|\n", b">\n", b"\t", b"\n\n---\n", b"\xff", b"9" * 5000, "\u2028".encode()),
]


def names(section: dict[str, Any], above: str = "") -> Iterator[str]:
    for key, value in section.items():
        yield above + key
        if isinstance(value, dict):
            yield from names(value, f"{above}{key}.")


NAMES = [*names(YAML(typ="safe").load(TEXT)), "registry.gates.accuracy.min"]
PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
NESTED = st.recursive(PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3))
WORD = st.sampled_from(WORDS).map(lambda word: word.decode(errors="replace"))
VALUES = st.one_of(NESTED.map(json.dumps), PLAIN.map(str), WORD)


@examples
def test_any_text_is_params_or_one_sentence(tmp_path: Path, examples: int):
    path = tmp_path / "params.yaml"

    def check(data: bytes) -> None:
        path.write_bytes(data)
        with one_sentence():
            load_params(path)

    with at_most(200):
        search(check, examples, damaged([TEXT, b""], WORDS))


@examples
def test_any_assignment_is_made_or_refused_in_one_sentence(tmp_path: Path, examples: int):
    path = tmp_path / "params.yaml"

    def check(name: str, value: str) -> None:
        path.write_bytes(TEXT)
        with one_sentence():
            expected = check_overrides([f"{name}={value}"], path)
            override_params([f"{name}={value}"], path)
            assert load_params(path) == expected
            return
        assert path.read_bytes() == TEXT

    search(check, examples, st.sampled_from(NAMES) | st.text("abc.=[]* \n", max_size=12), VALUES)
