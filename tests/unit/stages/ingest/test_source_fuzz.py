"""Any file that is called a dataset is one, or is refused in one sentence; its images are decoded or set aside."""

import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import strategies as st

from reflux.components.stages.ingest.decoding import decode_all
from reflux.components.stages.ingest.source import open_source
from tests.datasets import noise, save
from tests.fuzzing import at_most, damaged, examples, one_sentence, search

pytestmark = pytest.mark.timeout(900)

NAMES = st.sampled_from(["path", "label", "split", "image", "bytes", "camera", "Label ", "file", "", "a\nb", "x" * 300])
FILES = ["1.png", "sub/2.png", "../1.png", "/etc/passwd", "1.png\0", "x" * 300, "", "a\nb.png", "=1+1"]
KINDS = [  # of cells: a column has one kind
    *(st.sampled_from(FILES), st.sampled_from(["train", "val", "test", "unlabeled", "Dev", "", "else"])),
    *(st.text(max_size=12), st.integers(-2, 3), st.integers(), st.floats(), st.booleans(), st.binary(max_size=8)),
    *(st.dates(), st.decimals(allow_nan=False), st.lists(st.integers(), max_size=2), st.none()),
    st.fixed_dictionaries({"bytes": st.none() | st.binary(max_size=8), "path": st.none() | st.sampled_from(FILES)}),
]


@st.composite
def columns(draw: st.DrawFn) -> dict[str, list[Any]]:
    rows = draw(st.integers(0, 4))
    given = {"path": st.just("1.png")} if draw(st.booleans()) else {"image": KINDS[-1]} if draw(st.booleans()) else {}
    given |= {name: draw(st.sampled_from(KINDS)) for name in draw(st.lists(NAMES, max_size=5, unique=True))}
    gaps = st.none() if draw(st.booleans()) else st.nothing()
    return {name: draw(st.lists(kind | gaps, min_size=rows, max_size=rows)) for name, kind in given.items()}


WORDS = [*rb',|;|"|path|label|train|-1|1e400'.split(b"|"), b"\t", b"\r", b"\n", b"\0", b"\xff", b"\xef\xbb\xbf"]
LISTED = b"path,label,split,camera\n1.png,cat,train,left\nsub/2.png,dog,train,right\ngone.png,cat,test,\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save(noise(1), tmp_path / "1.png")
    save(noise(2), tmp_path / "sub" / "2.png")
    return tmp_path


def read(path: Path, scratch: Path) -> None:
    """Read a dataset as ingest does."""
    with one_sentence():
        slices = ("camera",) if b"camera" in path.read_bytes() else ()
        source = open_source(path, slices)
        limits: dict[str, Any] = {"min_size_px": 1, "max_megapixels": 0.5, "encoded": False, "processes": 1}
        frame, failures = decode_all(source.items, source.count, scratch, 3, 8, slices=slices, **limits)
        assert len(frame) + len(failures) == source.count
        assert set(frame["label"]) <= {-1, *range(len(source.classes))}


def parquet(given: dict[str, list[Any]], **options: Any) -> bytes | None:
    """A Parquet file; None of columns that Arrow has no type for."""
    try:
        table = pa.table(given)
        buffer = io.BytesIO()
        pq.write_table(table, buffer, **options)
    except (pa.ArrowException, ValueError, OverflowError, TypeError):
        return None
    return buffer.getvalue()


@examples
def test_any_csv_is_a_dataset_or_one_sentence(folder: Path, examples: int):
    file = folder / "list.csv"
    whole = [LISTED, LISTED.replace(b",", b";"), b""]

    def check(data: bytes) -> None:
        file.write_bytes(data)
        read(file, folder / "scratch")

    with at_most(300):
        search(check, examples, damaged(whole, WORDS, st.text(max_size=6).map(str.encode)))


@examples
def test_any_table_is_a_dataset_or_one_sentence(folder: Path, examples: int):
    file = folder / "list.parquet"

    def check(given: dict[str, list[Any]]) -> None:
        if data := parquet(given):
            file.write_bytes(data)
            read(file, folder / "scratch")

    with at_most(300):
        search(check, examples, columns())


@examples
def test_any_parquet_is_a_dataset_or_one_sentence(folder: Path, examples: int):
    file = folder / "data.parquet"
    png = (folder / "1.png").read_bytes()
    images = [{"bytes": png, "path": None}, {"bytes": None, "path": "1.png"}, {"bytes": b"x", "path": "x"}] * 3
    carried = {"image": images, "label": [0, 1, None] * 3, "camera": ["left", None, "right"] * 3}
    listed = {"path": ["1.png", "sub/2.png"] * 40, "label": ["cat", "dog"] * 40}
    whole = [parquet(*each) for each in ((carried,), (listed,))]
    whole += [parquet(listed, compression="zstd"), parquet(listed, use_dictionary=False, version="1.0")]

    def check(data: bytes) -> None:
        file.write_bytes(data)
        read(file, folder / "scratch")

    with at_most(600):
        search(check, examples, damaged([each for each in whole if each]))
