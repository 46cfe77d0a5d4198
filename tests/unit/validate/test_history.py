from pathlib import Path

from components.validate import history


def test_the_previous_version_is_the_last_different_one(tmp_path: Path) -> None:
    path = tmp_path / "new" / "versions.jsonl"
    assert history.previous(path, "a") is None
    history.remember(path, "a", {"x": 1.0})
    history.remember(path, "a", {"x": 1.0})
    assert len(path.read_text().splitlines()) == 1
    assert history.previous(path, "a") is None
    history.remember(path, "b", {"x": 0.5, "y": 0.5})
    assert (history.previous(path, "b") or {})["class_shares"] == {"x": 1.0}
    assert (history.previous(path, "c") or {})["fingerprint"] == "b"
    history.remember(path, "a", {"x": 1.0})
    assert (history.previous(path, "a") or {})["fingerprint"] == "b"


def test_a_line_cut_off_by_a_kill_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "versions.jsonl"
    history.remember(path, "a", {"x": 1.0})
    with path.open("a") as file:
        file.write('{"fingerprint": "b", "cla')
    assert (history.previous(path, "c") or {})["fingerprint"] == "a"
    history.remember(path, "c", {"x": 0.5})
    assert (history.previous(path, "d") or {})["fingerprint"] == "c"
