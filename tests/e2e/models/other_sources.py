"""What every run on a second dataset must do: notice that it has changed."""

from pathlib import Path

from tests.e2e.command import reflux


def assert_a_change_is_noticed(project: Path, stage: str) -> None:
    """A run without a change computes nothing; without a file of the second dataset, the stage that reads it runs."""
    again = reflux(project, "run")
    assert "No stage's data, params or code has changed" in again.stdout
    (project / "data/mnist/test.parquet").unlink()
    planned = reflux(project, "plan")
    assert "another dataset may have another content" in " ".join(planned.stdout.split())
    changed = reflux(project, "run")
    assert changed.returncode == 0, changed.stdout + changed.stderr
    assert f"{stage}: started" in changed.stdout
