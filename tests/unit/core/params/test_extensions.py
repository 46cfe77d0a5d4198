from pathlib import Path

import pytest

from reflux.components.core.contract import STAGES
from reflux.components.core.errors import UserError
from reflux.components.core.params import extensions
from reflux.components.core.params.distill import METHODS
from reflux.components.core.runtime import installed, lineage

TAKEN = """
from typing import Literal

from reflux.api import Loss

class Mine(Loss):
    name: Literal["kd"] = "kd"
"""
TAKEN_NETWORK = """
from reflux.api import network

@network("resnet8")
def mine(in_chans, num_classes, width=1.0): ...
"""


def write(name: str, text: str) -> Path:
    file = Path("extensions", name)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        (
            "losses/a.py",
            "x = 1\n\ny = undefined\n",
            "a.py, line 3, can't be loaded: NameError: name 'undefined' is not de",
        ),
        ("losses/a.py", "def f(:\n", "a.py, line 1, can't be loaded: SyntaxError: invalid syntax"),
        (
            "losses/a.py",
            "import nothing_of_the_kind\n",
            "a.py, line 1, can't be loaded: ModuleNotFoundError: No module",
        ),
        ("losses/a.py", TAKEN, "a.py, line 6, can't be loaded: Two methods are named kd: Kd and Mine."),
        ("networks/a.py", TAKEN_NETWORK, "a.py, line 4, can't be loaded: Two networks are named resnet8."),
        (
            "a.py",
            "",
            "extensions/a.py is in no folder of extensions: move it to extensions/losses/ or extensions/networks/.",
        ),
        ("loss/a.py", "", "extensions/loss/a.py is in no folder of extensions"),
    ],
)
def test_what_cannot_be_loaded_is_one_sentence_with_its_file_and_line(name, text, sentence):
    write(name, text)
    before = dict(METHODS)
    with pytest.raises(UserError) as refused:
        extensions.load()
    assert sentence in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1
    assert before == METHODS


def test_an_extension_is_imported_once():
    file = write("losses/once.py", "open('imported', 'a').write('x')\n")
    extensions.load()
    extensions.load()
    assert Path("imported").read_text() == "x"
    assert [each.name for each in extensions.found()] == [str(file)]


def test_it_counts_as_code_of_the_folder_that_it_extends():
    before = {stage: (installed.code(stage), lineage.code_sha256(stage)) for stage in STAGES}
    loss, network = write("losses/mine.py", "# one\n"), write("networks/net.py", "# one\n")
    for stage, (code, key) in before.items():
        named = {name for name, spec in STAGES.items() if "models" in spec.code}
        expected = {str(loss)} if stage == "distill" else set()
        expected |= {str(network)} if stage in named else set()
        assert set(installed.code(stage)) - set(code) == expected
        assert (lineage.code_sha256(stage) != key) == bool(expected)
    now = installed.code("distill")
    loss.write_text("# two\n")
    assert {part for part, sha256 in installed.code("distill").items() if now[part] != sha256} == {str(loss)}


def test_an_installed_package_brings_some_along(monkeypatch):
    written = write("../site/flowers_losses.py", "")
    monkeypatch.syspath_prepend(str(written.parent.resolve()))
    entry = extensions.EntryPoint("flowers", "flowers_losses", "reflux.losses")
    monkeypatch.setattr(extensions, "_installed", lambda kind: (entry,) if kind == "losses" else ())
    assert [(each.kind, each.name, each.file) for each in extensions.found()] == [
        ("losses", "flowers_losses", written.resolve())
    ]
    missing = extensions.EntryPoint("flowers", "gone_losses", "reflux.losses")
    monkeypatch.setattr(extensions, "_installed", lambda kind: (missing,))
    with pytest.raises(UserError, match="The losses gone_losses, an entry point, can't be found"):
        list(extensions.found())
