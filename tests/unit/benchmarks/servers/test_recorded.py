import json
from pathlib import Path

from benchmarks.servers.recorded import copy_journals


def write_journal(outbox: Path, name: str, parent: str | None) -> None:
    start = {"op": "start", "experiment": "tiny", "parent": parent, "tags": {"reflux.journal": name}}
    (outbox / name / "files").mkdir(parents=True)
    lines = [json.dumps(start), json.dumps({"op": "end"})]
    (outbox / name / "journal.jsonl").write_text("\n".join(lines), encoding="utf-8")


def test_copied_journals_are_those_of_another_retrain_with_the_same_parents(tmp_path: Path):
    outbox = tmp_path / "outbox"
    write_journal(outbox, "retrain", None)
    write_journal(outbox, "stage", "retrain")
    copy = copy_journals(outbox, tmp_path / "copy", "team-7")
    starts = {
        folder.name: json.loads((folder / "journal.jsonl").read_text(encoding="utf-8").splitlines()[0])
        for folder in copy.iterdir()
    }
    assert not starts.keys() & {"retrain", "stage"}
    assert {start["experiment"] for start in starts.values()} == {"team-7"}
    assert all(start["tags"]["reflux.journal"] == name for name, start in starts.items())
    (parent,) = [name for name, start in starts.items() if start["parent"] is None]
    assert [start["parent"] for name, start in starts.items() if name != parent] == [parent]
    assert all((copy / name / "files").is_dir() for name in starts)
