"""A converter's packages in a folder of their own, installed by pip for real, from a file."""

import importlib.util
import zipfile
from pathlib import Path

import pytest

from reflux.components.core.errors import UserError
from reflux.components.core.export import converters

pytestmark = pytest.mark.slow
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
    return str(path)


def test_packages_are_installed_once_for_the_script_alone(wheel, tmp_path, capfd):
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, pathlib, tiny_converter\npathlib.Path(sys.argv[1]).write_text(tiny_converter.NAME)\n"
    )
    for out in ("first", "second"):
        converters.convert("Tiny", [wheel], script, [out])
        assert Path(out).read_text() == "tiny"
    assert capfd.readouterr().out.count("Note: the converter for Tiny is installed into .reflux/converters/tiny-") == 1
    assert importlib.util.find_spec("tiny_converter") is None
    script.write_text("import tiny_converter\nprint('working')\nraise SystemExit('no operator aten.roll')\n")
    with pytest.raises(ValueError, match=r"\Ano operator aten\.roll"):
        converters.convert("Tiny", [wheel], script, [])


def test_packages_that_no_index_has_are_one_sentence_and_leave_nothing(wheel):
    sentence = r"The converter for Tiny can't be installed into \.reflux/converters \(.*gone.*\): reach a package index"
    with pytest.raises(UserError, match=sentence):
        converters.folder_of("Tiny", [wheel, "/gone/tiny-2.0-py3-none-any.whl"])
    assert [path for path in converters.HOME.iterdir() if path.is_dir()] == []
