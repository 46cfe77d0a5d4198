import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from reflux.components.core.artifacts import (
    as_cell,
    atomic,
    fingerprint,
    finite,
    read_json,
    translate_os_error,
    write_json,
)
from reflux.components.core.errors import UserError


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path):
    path = tmp_path / "a.json"
    write_json(path, {"kept": 1})
    with pytest.raises(ZeroDivisionError), atomic(path) as temporary:
        temporary.write_text("half")
        _ = 1 / 0
    assert read_json(path) == {"kept": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_the_temporary_name_keeps_the_suffix_that_numpy_looks_at(tmp_path: Path):
    with atomic(tmp_path / "x.npy") as temporary:
        np.save(temporary, np.arange(3))
    assert np.load(tmp_path / "x.npy").tolist() == [0, 1, 2]


def test_json_has_no_nan(tmp_path: Path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert not list(tmp_path.iterdir())
    assert finite({"a": 1.0, "b": float("nan"), "c": float("inf")}) == {"a": 1.0}


def test_a_damaged_or_missing_json_is_one_sentence(tmp_path: Path):
    with pytest.raises(UserError, match="is missing"):
        read_json(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(UserError, match="is not valid JSON"):
        read_json(tmp_path / "bad.json")


def test_a_folder_is_known_by_its_names_and_bytes(tmp_path: Path):
    (tmp_path / "a").write_text("1")
    first = fingerprint(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    renamed = fingerprint(tmp_path)
    (tmp_path / "b").write_text("2")
    assert len({first, renamed, fingerprint(tmp_path)}) == 3


BYTES = "temporary.write_bytes(b'x' * 50_000)"
ARRAY = "import numpy; numpy.save(temporary, numpy.zeros(50_000))"


@pytest.mark.parametrize("write", [BYTES, ARRAY])
def test_a_full_disk_is_a_sentence_and_leaves_nothing(tmp_path: Path, write: str):
    """A limit on the file size gives the real error from the real write, as a full disk would."""
    script = f"""
import resource, signal, sys
from pathlib import Path
from reflux.components.core.artifacts import atomic, translate_os_error
from reflux.components.core.errors import UserError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    with atomic(Path(sys.argv[1])) as temporary:
        {write}
except UserError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "big.npy")], check=False, capture_output=True, text=True
    )
    assert "free some space" in done.stdout, done.stderr
    assert not list(tmp_path.iterdir())
    sentence = translate_os_error(OSError(errno.ENOSPC, "No space left on device"), tmp_path / "big.bin")
    assert isinstance(sentence, UserError)
    assert "free some space" in str(sentence)


# Root may read everything, unless it gives that capability up.
WITHOUT_PRIVILEGE = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []


@pytest.mark.skipif(bool(WITHOUT_PRIVILEGE) and not shutil.which("setpriv"), reason="root may read everything")
def test_a_file_that_may_not_be_read_is_not_said_to_be_one_that_may_not_be_written(tmp_path: Path):
    (tmp_path / "a.json").write_text("{}")
    (tmp_path / "a.json").chmod(0o200)
    script = f"""
from pathlib import Path
from reflux.components.core.artifacts import read_json, translate_os_error
try:
    read_json(Path("{tmp_path}/a.json"))
except PermissionError as error:
    print(translate_os_error(error, Path(error.filename)))
"""
    command = [*WITHOUT_PRIVILEGE, sys.executable, "-c", script]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout == f"No permission to read {tmp_path}/a.json: make it readable and run again.\n"


def test_a_folder_in_the_place_of_a_file_is_one_sentence(tmp_path: Path):
    (tmp_path / "a.json").mkdir()
    with pytest.raises(IsADirectoryError) as caught:
        read_json(tmp_path / "a.json")
    sentence = str(translate_os_error(caught.value, tmp_path / "a.json"))
    assert sentence == f"{tmp_path}/a.json is a folder, where a file should be: move it away and run again."
    with pytest.raises(UserError, match=r"a\.json is a folder"):
        write_json(tmp_path / "a.json", {})


def test_json_is_readable_by_people(tmp_path: Path):
    write_json(tmp_path / "a.json", {"b": [1, 2]})
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert json.loads(text) == {"b": [1, 2]}
    assert text.endswith("\n")
    assert text.count("\n") > 3


@pytest.mark.parametrize("text", ["=1+1", "+1+1", "-1+1", "@SUM(A1)", "\t=1+1", "\r=1+1", "\n=1+1", "-cat"])
def test_a_formula_becomes_a_text(text: str):
    assert as_cell(text) == f"'{text}"


@pytest.mark.parametrize("value", ["-0.5", "+3", "-1e-7", "-inf", -0.5, 7, None, "cat", "a=b", "", " =1", "'=1"])
def test_a_number_or_another_text_stays(value: object):
    assert as_cell(value) is value
