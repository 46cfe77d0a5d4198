from pathlib import Path

from reflux.components.stages.validate import history


def test_the_previous_version_is_the_last_different_one(tmp_path: Path) -> None:
    path = tmp_path / "new" / "versions.jsonl"
    assert history.previous(path, "pets", "a") is None
    history.remember(path, "pets", "a", {"x": 1.0})
    history.remember(path, "pets", "a", {"x": 1.0})
    assert len(path.read_text().splitlines()) == 1
    assert history.previous(path, "pets", "a") is None
    history.remember(path, "pets", "b", {"x": 0.5, "y": 0.5})
    assert (history.previous(path, "pets", "b") or {})["class_shares"] == {"x": 1.0}
    assert (history.previous(path, "pets", "c") or {})["fingerprint"] == "b"
    history.remember(path, "pets", "a", {"x": 1.0})
    assert (history.previous(path, "pets", "a") or {})["fingerprint"] == "b"


def test_another_dataset_is_no_previous_version(tmp_path: Path) -> None:
    path = tmp_path / "versions.jsonl"
    history.remember(path, "pets", "a", {"cat": 1.0})
    assert history.previous(path, "digits", "b") is None
    history.remember(path, "digits", "b", {"0": 1.0})
    assert (history.previous(path, "pets", "c") or {})["fingerprint"] == "a"


def test_a_line_cut_off_by_a_kill_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "versions.jsonl"
    history.remember(path, "pets", "a", {"x": 1.0})
    with path.open("a") as file:
        file.write('{"fingerprint": "b", "cla')
    assert (history.previous(path, "pets", "c") or {})["fingerprint"] == "a"
    history.remember(path, "pets", "c", {"x": 0.5})
    assert (history.previous(path, "pets", "d") or {})["fingerprint"] == "c"
