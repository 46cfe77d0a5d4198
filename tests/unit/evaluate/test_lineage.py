import json
import subprocess

from components.evaluate import lineage

LOCK = """
schema: '2.0'
stages:
  ingest:
    deps:
    - {path: components/ingest, hash: md5, md5: aaa.dir}
    - {path: data/things, hash: md5, md5: bbb.dir}
"""


def git(folder, *arguments):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


def test_the_code_is_the_commit(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    git(tmp_path, "init")
    git(tmp_path, "commit", "--allow-empty", "-m", "first")
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    assert lineage.code() == f"git {head}"


def test_a_copy_without_git_says_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert lineage.code() == "unknown: this folder is no git checkout with a commit"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert lineage.code() == "unknown: git is not installed"


def test_the_data_version_is_dvcs(tmp_path):
    (tmp_path / "dvc.lock").write_text(LOCK)
    assert lineage.data_md5(tmp_path / "dvc.lock") == "bbb.dir"
    assert lineage.data_md5(tmp_path / "none.lock") is None


def test_only_tracked_stages_have_a_run(tmp_path):
    for stage, run in (("ingest", "abc"), ("finetune", None)):
        (tmp_path / stage).mkdir()
        (tmp_path / stage / "run.json").write_text(json.dumps({"mlflow_run_id": run}))
    assert lineage.runs(("ingest", "finetune", "distill"), tmp_path) == {"ingest": "abc"}


def test_the_processor_has_a_name_everywhere(tmp_path):
    (tmp_path / "cpuinfo").write_text("processor : 0\nmodel name\t: Fast CPU 9000\n")
    assert lineage.processor(tmp_path / "cpuinfo") == "Fast CPU 9000"
    assert lineage.processor(tmp_path / "none")


def test_the_software_has_releases():
    assert "onnxruntime " in lineage.software()
