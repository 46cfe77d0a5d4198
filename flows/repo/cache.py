"""DVC's cache: what no present, recent or registered state of the project refers to, found and removed by ``dvc gc``.

That command keeps what the workspace and commits refer to. What registered versions were made from may be in neither,
and what was computed lately and not committed is not: for it, these are the outputs of a further project with the same
cache, which lives as long as the command.
"""

import json
import subprocess
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from ruamel.yaml import YAML

from reflux.components.core.errors import UserError
from reflux.components.core.project import root
from reflux.components.core.runtime.lineage import LOCK, git, has_commit
from reflux.flows.repo.checkout import dvc, in_git
from reflux.flows.repo.remote import cache_folder
from reflux.flows.repo.stages import own_sentence

_HASH = r"md5: [0-9a-f]{32}(\.dir)?"
_REMOVING = "Removing "


def shared() -> Path | None:
    """The cache, if it is outside of the project: others may use it, whose references nobody here knows."""
    if not (root() / ".dvc").is_dir():
        return None
    cache = cache_folder()
    return None if cache.is_relative_to(root().resolve()) else cache


def unused(data: Collection[str], commits: Collection[str], before: datetime) -> list[Path]:
    """The files of the cache that :func:`collect` removes.

    Raises:
        UserError: DVC can't read what a commit or the workspace refers to.
    """
    if not (root() / ".dvc").is_dir() or shared() or not (cache_folder() / "files").is_dir():
        return []
    lines = _gc(data, commits, before, "--dry")
    return [Path(line.removeprefix(_REMOVING)) for line in lines if line.startswith(_REMOVING)]


def collect(data: Collection[str], commits: Collection[str], before: datetime) -> None:
    """Remove what nothing refers to that must stay.

    What stays: all of the workspace, of the tips of branches, of tags, of experiments, of commits since ``before``, and
    all that was written since.

    Args:
        data: hashes of the datasets of registered versions.
        commits: of registered versions; this checkout need not have them.
        before: when it must have been written.

    Raises:
        UserError: DVC refuses it; nothing, or a part, was removed.
    """
    _gc(data, commits, before)


def _gc(data: Collection[str], commits: Collection[str], before: datetime, *options: str) -> list[str]:
    scope = ["--workspace"]
    if in_git():
        # DVC takes the date as one of this machine's time zone, and keeps the commits since its midnight.
        date = f"{before.astimezone():%Y-%m-%d}"
        scope += ["--all-branches", "--all-tags", "--all-experiments", "--date", date]
    with _project({*data, *_of_commits(commits), *_young(before)}) as project:
        code, lines = dvc("gc", "--force", *scope, "--projects", str(project), *options)
    if code != 0:
        raise UserError(
            f"DVC can't tell what its cache is needed for ({own_sentence(lines).rstrip('.')}): correct that."
        )
    return lines


@contextmanager
def _project(hashes: Collection[str]) -> Iterator[Path]:
    """Make a project with the same cache, whose outputs are those of the hashes that are in it."""
    cache = cache_folder()
    there = [each for each in sorted(hashes) if (cache / "files" / "md5" / each[:2] / each[2:]).is_file()]
    with tempfile.TemporaryDirectory(prefix="reflux-") as folder:
        project = Path(folder)
        (project / ".dvc").mkdir()
        settings = f"[core]\n    no_scm = {not in_git()}\n[cache]\n    dir = {cache}\n"
        (project / ".dvc" / "config").write_text(settings, encoding="utf-8")
        if in_git():  # where DVC reads commits of one project, it wants to read those of the other
            git("init", "--quiet", str(project))
        outs = [{"md5": each, "hash": "md5", "path": each} for each in there]
        with (project / "kept.dvc").open("w", encoding="utf-8") as file:
            YAML(typ="safe").dump({"outs": outs}, file)
        yield project


def _of_commits(commits: Collection[str]) -> set[str]:
    """The hashes in the lock files and pointers of commits, as far as this checkout has them."""
    here = [commit for commit in commits if has_commit(commit)]
    files = [":(top)*.dvc", f":(top,glob)**/{LOCK}"]
    try:
        found = git("grep", "--only-matching", "-hE", _HASH, *here, "--", *files) if here else ""
    except subprocess.CalledProcessError as error:
        if error.returncode != 1:  # 1 is for no match
            raise
        found = ""
    return {line.removeprefix("md5: ") for line in found.splitlines()}


def _young(before: datetime) -> set[str]:
    """The hashes of what was written to the cache since a time, without the files of folders among them."""
    since = before.timestamp()
    files = (file for file in (cache_folder() / "files" / "md5").glob("[0-9a-f][0-9a-f]/*") if file.is_file())
    young = {f"{file.parent.name}{file.name}": file for file in files if file.stat().st_mtime >= since}
    folders = [file for name, file in young.items() if name.endswith(".dir")]
    inside = {each["md5"] for file in folders for each in json.loads(file.read_bytes())}
    return young.keys() - inside
