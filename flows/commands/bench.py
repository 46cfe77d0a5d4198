"""``reflux bench``: files of students side by side, each in its own runtime."""

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from reflux.components.core.artifacts import ARTIFACTS, read_json
from reflux.components.core.contract import FILES, FORMATS
from reflux.components.core.errors import UserError
from reflux.components.core.params.file import load_params
from reflux.components.core.params.sections import Params
from reflux.components.core.runtime import tracking
from reflux.components.core.runtime.machine import usable_cores
from reflux.flows.commands.registry import registry_params
from reflux.flows.local.environment import embed_mlflow
from reflux.flows.local.supervised import STAGE_ENVIRONMENT
from reflux.flows.report.display import console

if TYPE_CHECKING:
    from reflux.components.advice.bench.report import Report
    from reflux.components.core.data.shards import Shard

_SHARDS = ARTIFACTS / "ingest" / "shards"
_MOST_IMAGES = 1000  # that a device gets: an accuracy then has a standard error of about a point


def bench(names: Sequence[str], threads: str, batches: str) -> None:
    """Measure files on the validation images, print them in one table, and log it to MLflow.

    Args:
        names: versions' numbers, aliases and files; none for the files of the last run. The first is what the others
            are compared with.
        threads, batches: numbers, separated by commas.

    Raises:
        UserError: an argument or a file is wrong, or there are no validation images.
    """
    counts, sizes = _numbers(threads, "--threads"), _numbers(batches, "--batch")
    if max(counts) > usable_cores():
        raise UserError(f"--threads {max(counts)} is more than the {usable_cores()} cores that there are.")
    with _opened(names) as (files, val, classes, params):
        from reflux.components.advice.bench.measure import measure
        from reflux.flows.report import bench as report

        say = partial(print, flush=True)
        result = measure(files, val, classes, counts, sizes, params.project.name, say)
        _print(result)
        report.log(result, params.project.name)
    tracking.deliver()


def export(names: Sequence[str], threads: str, batches: str, folder: Path) -> None:
    """Write a folder that measures files on a device, and print what to do there.

    Args:
        names, threads, batches: as in :func:`bench`; without names, programs of torch are left out.
        folder: that does not exist yet.

    Raises:
        UserError: an argument or a file is wrong, or there are no validation images.
    """
    counts, sizes = _numbers(threads, "--threads"), _numbers(batches, "--batch")
    if not (1 in counts and 1 in sizes):
        raise UserError("A gate reads the time of one image on one thread: let --threads and --batch have a 1.")
    with _opened(names, without=".pt2") as (files, val, classes, params):
        from reflux.components.advice.bench.export import write_folder

        images = write_folder(folder, files, val, classes, counts, sizes, params.project.name, _MOST_IMAGES)
    print(
        f"{folder} has {', '.join(files)} and {images:,} validation images. Copy it to the device, and there:\n\n"
        "  pip install -r requirements.txt\n"
        "  python bench.py --device NAME\n\n"
        "Bring back report-NAME.json: reflux bench --import report-NAME.json"
    )


def take(path: Path) -> None:
    """Read a device's report, print it, and log it to MLflow with the versions whose files it measured.

    Raises:
        UserError: it is no report, or of files of which none is a registered version's.
    """
    from reflux.components.advice.bench.report import read
    from reflux.components.registry import client
    from reflux.flows.report import bench as report

    params, result = registry_params(), read(path)
    name = params.registry.model_name
    mlflow = client.connect()
    with client.translate_errors():
        same = {row.sha256: f"tags.artifact_sha256 = '{row.sha256}'" for row in result.rows}
        known = {
            sha256: [int(version.version) for version in client.versions(mlflow, name, condition)]
            for sha256, condition in same.items()
        }
    if not any(known.values()):
        files = ", ".join(f"{row.name} ({row.sha256[:12]}…)" for row in result.rows)
        raise UserError(
            f"{path} is the report of other files: {files}; no version of {name} has one of them: make the folder with "
            "`reflux bench VERSION --export DIR` and measure again."
        )
    _print(result)
    report.log(result, params.project.name, known)
    tracking.deliver()
    print()
    for row in result.rows:
        for number in known[row.sha256]:
            late = next((f"{each.ms_p95:.3g} ms" for each in row.speeds if (each.threads, each.batch) == (1, 1)), "not")
            print(f"{name} version {number} on {result.device}: p95 {late}. `reflux promote {number}` judges it again.")


@contextmanager
def _opened(names: Sequence[str], without: str = "") -> "Iterator[tuple[dict[str, Path], Shard, list[str], Params]]":
    """Files by their names for people, the validation images, the names of the classes, and the params.

    Args:
        names: of files and versions; none for the files of the last run.
        without: a suffix of files of the last run that are left out.

    Raises:
        UserError: this is no project, or a file or the images are not there.
    """
    os.environ.update({**STAGE_ENVIRONMENT, **os.environ})  # read when torch is loaded
    params = load_params()
    embed_mlflow()
    with ExitStack() as fetched:
        chosen = names or [name for name in _last_run() if not without or not name.endswith(without)]
        files = _files(chosen, params.registry.model_name, fetched)
        for path in files.values():
            _refuse(path)
        yield files, *_validation(), params


def _print(result: "Report") -> None:
    from reflux.flows.report import bench as report

    screen = console()
    screen.print(report.table(result.rows))
    screen.print()
    for sentence in report.sentences(result):
        screen.print(sentence, markup=False)


def _numbers(text: str, option: str) -> list[int]:
    """Numbers from 1 on, each once, in their order.

    Raises:
        UserError: they are not.
    """
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() and int(word) > 0 for word in words):
        raise UserError(f"{option} {text} is no list of numbers from 1 on: write {option} 1,2 for example.")
    return list(dict.fromkeys(int(word) for word in words))


def _last_run() -> list[str]:
    """The files of the last run, fp32 first.

    Raises:
        UserError: there was none.
    """
    folder = ARTIFACTS / "compress"
    paths = [folder / file.name for file in FILES.values()]
    if not (folder / "parity.json").is_file():
        raise UserError(f"{folder} has no files of a run: run `reflux run` first, or name a file or a version.")
    return [str(path) for path in paths if path.is_file()]


def _refuse(path: Path) -> None:
    """Refuse what is no file of a runtime that is known here.

    Raises:
        UserError: it is not.
    """
    if not path.is_file():
        raise UserError(f"{path} is not a file: give one that `reflux run` made, or the number of a version.")
    if path.suffix not in FORMATS:
        raise UserError(f"{path} has no runtime here: give a file that ends with {', '.join(FORMATS)}.")


def _files(names: Sequence[str], model_name: str, fetched: ExitStack) -> dict[str, Path]:
    """The files that are meant, by their names for people: those of versions are fetched, and checked by their hashes.

    Raises:
        UserError: there is no such version.
    """
    files = {}
    for name in names:
        if (path := Path(name)).suffix or len(path.parts) > 1 or path.is_file():
            files[name.removeprefix(f"{ARTIFACTS}/compress/")] = path
        else:
            registry_params()
            label = f"version {name}" if name.isdecimal() else name
            files[label] = _version_file(model_name, name, fetched)
    return files


def _version_file(model_name: str, which: str, fetched: ExitStack) -> Path:
    from reflux.components.registry import client
    from reflux.components.registry.versions.files import fetch_files

    mlflow = client.connect()
    with client.translate_errors():
        return fetched.enter_context(fetch_files(client.named(mlflow, model_name, which))).file


def _validation() -> "tuple[Shard, list[str]]":
    """The validation images of the last run, and the classes of its dataset.

    Raises:
        UserError: there are none.
    """
    from reflux.components.core.data.shards import open_shard

    if not (_SHARDS / "val").is_dir():
        raise UserError(f"{_SHARDS} has no validation images: run `reflux run` first.")
    val = open_shard(_SHARDS / "val")
    if not len(val.labels):
        raise UserError(
            f"{_SHARDS / 'val'} holds no image: set ingest.split.val above 0, or add a folder or file named val."
        )
    return val, read_json(ARTIFACTS / "ingest" / "dataset.json")["classes"]
