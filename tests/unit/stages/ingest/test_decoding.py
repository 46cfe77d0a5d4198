import io
import resource
from pathlib import Path

import pytest
from PIL import Image

from reflux.components.core.data import processes
from reflux.components.stages.ingest.decoding import decode_all
from reflux.components.stages.ingest.items import Item


def picture(value: int, size: int = 4) -> bytes:
    out = io.BytesIO()
    Image.new("L", (size, size), value).save(out, "PNG")
    return out.getvalue()


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("encoded", [False, True])
def test_decoding_keeps_order_and_names_what_failed(tmp_path: Path, monkeypatch, encoded: bool, count: int) -> None:
    for limit in ("_SECONDS_ALONE", "_WORTH_SHARING_S"):  # all but the first batch goes to other processes
        monkeypatch.setattr(processes, limit, 0.0)
    (tmp_path / "file.png").write_bytes(picture(200))
    items = [Item(f"{i}.png", None, i % 2, picture(i)) for i in range(100)]
    items[7] = Item("7.png", "train", 0, b"")
    items[50] = Item("50.png", None, 1, tmp_path / "missing.png")
    items[60] = Item("60.png", "val", 1, tmp_path / "file.png")
    items[61] = Item("61.png", None, 1, tmp_path)
    scratch, limits = tmp_path / "scratch", {"min_size_px": 1, "max_megapixels": 1}
    frame, failures = decode_all(iter(items), 100, scratch, 1, 2, **limits, encoded=encoded, processes=count)
    expected = [200 if i == 60 else i for i in range(100) if i not in (7, 50, 61)]
    written = scratch.read_bytes()
    stored = [written[begin:end] for begin, end in zip(frame["begin"], frame["end"], strict=True)]
    assert stored == [picture(value) if encoded else bytes([value]) * 4 for value in expected]
    assert sum(map(len, stored)) == len(written)
    assert frame["sum_0"].tolist() == [4 * value for value in expected]
    assert frame["squares_0"].tolist() == [4 * value**2 for value in expected]
    assert frame["path"].tolist() == [f"{i}.png" for i in range(100) if i not in (7, 50, 61)]
    assert frame.set_index("path").loc["60.png", ["given_split", "label", "bytes", "width"]].tolist() == [
        *("val", 1, len(picture(200)), 4)
    ]
    assert [f.reason for f in failures] == [
        "7.png is empty (zero bytes).",
        "50.png does not exist.",
        "61.png is a folder and no file.",
    ]


def test_a_full_disk_is_an_error_of_the_system(tmp_path: Path) -> None:
    items, limits = [Item("1.png", None, 0, picture(1, size=64))] * 3, {"min_size_px": 1, "max_megapixels": 1}
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, before[1]))
    try:
        with pytest.raises(OSError, match=r"No space left|File too large"):
            decode_all(items, 3, tmp_path / "scratch", 1, 64, **limits, encoded=False, processes=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
