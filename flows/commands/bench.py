"""``reflux bench``: files of students side by side, each in its own runtime."""

import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from reflux.components.core.artifacts import ARTIFACTS, read_json
from reflux.components.core.contract import FILES, FORMATS
from reflux.components.core.errors import UserError
from reflux.components.core.params.file import load_params
from reflux.components.core.runtime import tracking
from reflux.components.core.runtime.machine import usable_cores
from reflux.flows.commands.registry import registry_params
from reflux.flows.local.environment import embed_mlflow
from reflux.flows.local.supervised import STAGE_ENVIRONMENT
from reflux.flows.report.display import console

if TYPE_CHECKING:
    from reflux.components.core.images.shards import Shard

_SHARDS = ARTIFACTS / "ingest" / "shards"


def bench(names: Sequence[str], threads: str, batches: str) -> None:
    """Measure files on the validation images, print them in one table, and log it to MLflow.

    Args:
        names: versions' numbers, aliases and files; none for the files of the last run. The first is what the others
            are compared with.
        threads, batches: numbers, separated by commas.

    Raises:
        UserError: an argument or a file is wrong, or there are no validation images.
    """
    os.environ.update({**STAGE_ENVIRONMENT, **os.environ})  # read when torch is loaded
    counts, sizes = _numbers(threads, "--threads"), _numbers(batches, "--batch")
    if max(counts) > usable_cores():
        raise UserError(f"--threads {max(counts)} is more than the {usable_cores()} cores that there are.")
    params = load_params()
    embed_mlflow()
    with ExitStack() as fetched:
        files = _files(names or _last_run(), params.registry.model_name, fetched)
        for path in files.values():
            _refuse(path)
        val, classes = _validation()
        from reflux.components.bench.measure import measure
        from reflux.flows.report import bench as report

        rows = measure(files, val, classes, counts, sizes, lambda words: print(f"{words} …", flush=True))
        screen = console()
        screen.print(report.table(rows))
        screen.print()
        for sentence in report.sentences(rows, len(val.labels)):
            screen.print(sentence, markup=False)
        report.log(rows, files, len(val.labels), params.project.name)
    tracking.deliver()


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


def _validation() -> "tuple[Shard, int]":
    """The validation images of the last run, and how many classes its dataset has.

    Raises:
        UserError: there are none.
    """
    from reflux.components.core.images.shards import open_shard

    if not (_SHARDS / "val").is_dir():
        raise UserError(f"{_SHARDS} has no validation images: run `reflux run` first.")
    val = open_shard(_SHARDS / "val")
    if not len(val.labels):
        raise UserError(f"{_SHARDS / 'val'} holds no image: give ingest a validation split.")
    return val, len(read_json(ARTIFACTS / "ingest" / "dataset.json")["classes"])
