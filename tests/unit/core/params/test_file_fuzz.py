"""Any text is a params file or one sentence, and nothing is written that can't be read."""

import re
from pathlib import Path

import pytest
from hypothesis import strategies as st

from reflux.components.core.params.file import check_overrides, load_params, override_params
from tests.fuzzing import at_most, damaged, examples, one_sentence, search
from tests.workspaces import ROOT

pytestmark = pytest.mark.timeout(600)

TEXT = re.sub(rb" *#.*", b"", (ROOT / "params.yaml").read_bytes())  # half as long to parse
WORDS = [
    *rb"&a|*a|<<: *a|? |- |{|[|!!python/object:os.system|!!binary |: ".split(b"|"),
    *rb"null|~|.inf|.nan|1e999|0o17|2001-01-01".split(
        b"|"
    ),
    *rb"&a [*a]|&a {a: *a}|'|\"|\x00|#|%YAML 9.9".split(b"|"),
    *(b"|\n", b">\n", b"\t", b"\n\n---\n", b"\xff", b"9" * 5000, "\u2028".encode()),
]
NAMES = ["seed", "student.steps", "student.augment", "distill.method", "registry.gates.accuracy.min", "tune.space"]
VALUES = st.one_of(st.text(max_size=30), st.sampled_from(WORDS).map(lambda word: word.decode(errors="replace")))


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

    names = st.one_of(st.sampled_from(NAMES), st.text("abc.=[]* \n", max_size=12))
    search(check, examples, names, VALUES)
