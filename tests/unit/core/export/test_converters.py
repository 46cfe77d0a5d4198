"""A converter's packages in a folder of their own, installed by pip for real, from a file."""

import importlib.util
import re
import zipfile
from pathlib import Path

import pytest

from reflux.components.core.artifacts import sha256_file
from reflux.components.core.errors import UserError
from reflux.components.core.export import converters
from reflux.components.core.export.litert_packages import PACKAGES

pytestmark = pytest.mark.long
FACTS = "tiny_converter-1.0.dist-info"


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "tiny_converter-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("tiny_converter.py", "NAME = 'tiny'\n")
        archive.writestr(f"{FACTS}/METADATA", "Metadata-Version: 2.1\nName: tiny-converter\nVersion: 1.0\n")
        archive.writestr(f"{FACTS}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{FACTS}/RECORD", "")
    return f"tiny-converter @ {path.as_uri()} --hash=sha256:{sha256_file(path)}\n"


def test_packages_are_installed_once_for_the_script_alone(wheel, tmp_path, capfd):
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, pathlib, tiny_converter\npathlib.Path(sys.argv[1]).write_text(tiny_converter.NAME)\n"
    )
    for out in ("first", "second"):
        converters.convert("Tiny", wheel, script, [out])
        assert Path(out).read_text() == "tiny"
    assert capfd.readouterr().out.count("Note: the converter for Tiny is installed into .reflux/converters/tiny-") == 1
    assert importlib.util.find_spec("tiny_converter") is None
    script.write_text("import tiny_converter\nprint('working')\nraise SystemExit('no operator aten.roll')\n")
    with pytest.raises(ValueError, match=r"\Ano operator aten\.roll"):
        converters.convert("Tiny", wheel, script, [])


def test_packages_that_no_index_has_are_one_sentence_and_leave_nothing(wheel):
    sentence = r"The converter for Tiny can't be installed into \.reflux/converters \(.*gone.*\): reach a package index"
    with pytest.raises(UserError, match=sentence):
        converters.folder_of("Tiny", wheel.replace("tiny_converter-1.0", "gone-1.0"))
    assert [path for path in converters.HOME.iterdir() if path.is_dir()] == []


def test_another_file_than_the_one_that_was_tried_is_not_installed(wheel):
    with zipfile.ZipFile("tiny_converter-1.0-py3-none-any.whl", "a") as archive:
        archive.writestr("sitecustomize.py", "import pathlib; pathlib.Path('intruded').touch()\n")
    with pytest.raises(UserError, match=r"The converter for Tiny can't be installed .*HASH"):
        converters.folder_of("Tiny", wheel)
    with pytest.raises(UserError, match=r"The converter for Tiny can't be installed .*Hashes are required"):
        converters.folder_of("Tiny", wheel.partition(" --hash")[0])
    assert [path for path in converters.HOME.iterdir() if path.is_dir()] == []
    assert not Path("intruded").exists()


def test_every_package_of_litert_has_hashes():
    blocks = PACKAGES.replace(" \\\n", " ").strip().splitlines()
    assert len(blocks) > 10
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+( +--hash=sha256:[0-9a-f]{64})+", block) for block in blocks)
