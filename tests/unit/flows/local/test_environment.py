"""What a worker's clone keeps outside of itself."""

from pathlib import Path

from flows.local.environment import keep_home


def test_a_clone_keeps_its_home_where_the_next_one_finds_it(tmp_path, monkeypatch):
    monkeypatch.setenv("REFLUX_HOME", str(tmp_path / "kept"))
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        keep_home("shapes", f"run of {name}")
        keep_home("shapes", "no other run")
        with Path(".reflux/seen").open("a") as file:
            file.write(f"{name}\n")
    assert (tmp_path / "kept" / "shapes" / "seen").read_text() == "first\nsecond\n"
    assert (tmp_path / "kept" / "shapes" / "flow-run").read_text() == "run of second"


def test_a_checkout_that_has_a_home_keeps_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path(".reflux").mkdir()
    monkeypatch.setenv("REFLUX_HOME", str(tmp_path / "kept"))
    keep_home("shapes", "a run")
    assert not Path(".reflux").is_symlink()
    monkeypatch.delenv("REFLUX_HOME")
    Path(".reflux").rmdir()
    keep_home("shapes", "a run")
    assert not Path(".reflux").exists()
