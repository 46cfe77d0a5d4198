"""DVC in a folder with and without git, and where it keeps what it knows of the files there."""

import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from dvc_data.hashfile.cache import Cache

from reflux.flows.repo.checkout import dvc, prepare_dvc


def test_dvc_works_with_git_without_it_and_again_with_it(checkout):
    status = [sys.executable, "-m", "dvc", "status"]
    Path("dvc.yaml").write_text("stages: {}\n")
    prepare_dvc()
    assert subprocess.run(status, capture_output=True, check=False).returncode == 0
    assert "no_scm" in Path(".dvc/config.local").read_text()
    subprocess.run(["git", "init", "-q"], check=True)
    prepare_dvc()
    assert "no_scm" not in Path(".dvc/config.local").read_text()
    assert subprocess.run(status, capture_output=True, check=False).returncode == 0


class Intruder:
    def __reduce__(self):
        return Path.touch, (Path("intruded"),)


def poison(cache: Path) -> None:
    """Add what another user could, who may write there: DVC unpickles the name of each link that it has noted."""
    with Cache(str(cache / "links")) as links:
        links._sql("INSERT INTO Cache(key, raw, value) VALUES (?, 0, 0)", (pickle.dumps(Intruder()),))


def cache_of_dvc(lines: list[str]) -> Path:
    return Path(next(line for line in lines if "site_cache_dir" in line).partition(": ")[2])


def test_what_another_user_left_in_dvcs_shared_cache_is_not_unpickled(checkout, monkeypatch):
    """CVE-2025-69872: DVC's own place is /var/tmp/dvc, where all users may write."""
    monkeypatch.delenv("DVC_SITE_CACHE_DIR", raising=False)
    Path("dvc.yaml").write_text("stages: {}\n")
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q", "--no-scm"], check=True)
    plain = [sys.executable, "-m", "dvc"]
    report = subprocess.run([*plain, "doctor"], capture_output=True, text=True, check=True).stdout
    shared = cache_of_dvc(report.splitlines())
    assert shared.is_relative_to("/var/tmp/dvc")  # noqa: S108
    try:
        poison(shared)
        assert dvc("checkout")[0] == 0
        assert not Path("intruded").exists()
        monkeypatch.delenv("DVC_SITE_CACHE_DIR")
        subprocess.run([*plain, "checkout", "--quiet"], check=False, capture_output=True)
        assert Path("intruded").exists(), "the attack works no more: DVC is mended, and keep_cache_private can go"
    finally:
        shutil.rmtree(shared)


def test_dvcs_cache_is_in_the_checkout_and_its_users_own(checkout, monkeypatch):
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", "")
    prepare_dvc()
    used = cache_of_dvc(dvc("doctor")[1])
    private = next(parent for parent in used.parents if parent.name.startswith("site-"))
    assert private.parent == checkout / ".dvc/tmp"
    assert private.stat().st_mode & 0o777 == 0o700
    assert re.search(r"^/tmp$", Path(".dvc/.gitignore").read_text(), re.MULTILINE)


@pytest.mark.parametrize("by", ["environment", "configuration"])
def test_a_cache_that_the_user_chose_stays(checkout, monkeypatch, tmp_path, by):
    monkeypatch.delenv("DVC_SITE_CACHE_DIR", raising=False)
    prepare_dvc()
    monkeypatch.delenv("DVC_SITE_CACHE_DIR", raising=False)
    if by == "environment":
        monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "mine"))
    else:
        subprocess.run(
            [sys.executable, "-m", "dvc", "config", "core.site_cache_dir", str(tmp_path / "mine")], check=True
        )
    assert cache_of_dvc(dvc("doctor")[1]).is_relative_to(tmp_path / "mine")
