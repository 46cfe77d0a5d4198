"""A folder that measures files on any machine: the files, images with their answers, and a script without Reflux."""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from reflux.components.advice.bench import device
from reflux.components.advice.bench.report import FORMAT
from reflux.components.core.artifacts import sha256_file, translate_os_error, write_json
from reflux.components.core.contract import FORMATS
from reflux.components.core.data.shards import Shard, at_once
from reflux.components.core.errors import UserError
from reflux.components.core.export import timing
from reflux.components.core.export.network import MODULES, Network, code_of, load

_BATCH = 256
_PARTS = ("files", "images", "answers", "formats")


def write_folder(
    folder: Path,
    files: Mapping[str, Path],
    val: Shard,
    classes: Sequence[str],
    threads: Sequence[int],
    batches: Sequence[int],
    project: str,
    most: int | None = None,
) -> int:
    """Write a folder for :mod:`reflux.components.advice.bench.device`, all of it or nothing.

    Args:
        folder: that does not exist yet.
        files: by their names for people; the first is what the others are compared with.
        val: labeled images.
        classes: their names, in the order of the logits.
        threads, batches: numbers of threads and of images at once, each with each.
        project: whose files they are.
        most: images, spread evenly over the split; None takes all.

    Returns:
        The number of images.

    Raises:
        UserError: the folder exists, or a file is damaged, takes something else than raw pixels or has other classes.
    """
    rows = np.unique(np.linspace(0, len(val.labels) - 1, min(most or len(val.labels), len(val.labels))).round())
    rows = rows.astype(np.int64)
    with _whole(folder) as building:
        for part in _PARTS:
            (building / part).mkdir()
        np.save(building / "images/labels.npy", val.labels[rows])
        named = enumerate(files.items(), 1)
        plans = [_add(building, f"{number}-", name, path, val, rows, classes) for number, (name, path) in named]
        plan = {"format": FORMAT, "project": project, "classes": list(classes), "images": len(rows)}
        write_json(building / "plan.json", {**plan, "threads": threads, "batches": batches, "files": plans})
        packages = {package for path in files.values() for package in MODULES[path.suffix].REQUIREMENTS}
        (building / "requirements.txt").write_text("\n".join(sorted(packages)) + "\n", encoding="utf-8")
        shutil.copyfile(device.__file__, building / "bench.py")
        shutil.copyfile(timing.__file__, building / "timing.py")
    return len(rows)


def _add(
    building: Path, prefix: str, name: str, path: Path, val: Shard, rows: Any, classes: Sequence[str]
) -> dict[str, str]:
    """Add a file with its images and answers; returns its entry in the plan.

    Raises:
        UserError: the file is damaged, takes something else than raw pixels or has other classes.
    """
    network = load(path)
    code, pixels = code_of(path.suffix), f"images/{network.channels}x{network.image_size}.npy"
    stem = f"{prefix}{re.sub(r'[^A-Za-z0-9.]+', '-', name).removesuffix(path.suffix)}"
    entry = {
        **{"name": name, "path": f"files/{stem}{path.suffix}", "sha256": sha256_file(path)},
        **{"runtime": FORMATS[path.suffix].runtime, "code": f"formats/{code.name}"},
        **{"pixels": pixels, "answers": f"answers/{stem}.npy"},
    }
    shutil.copyfile(path, building / entry["path"])
    shutil.copyfile(code, building / entry["code"])
    np.save(building / entry["answers"], _answers(name, network, building / pixels, val, rows, len(classes)))
    return entry


def _answers(name: str, network: Network, pixels: Path, val: Shard, rows: Any, classes: int) -> Any:
    """The predicted class of each image; the pixels are written unless another file has the same.

    Raises:
        UserError: the file has other classes than the dataset.
    """
    shape = (len(rows), network.channels, network.image_size, network.image_size)
    new = not pixels.is_file()
    kept = np.lib.format.open_memmap(pixels, "w+" if new else "r", np.uint8, shape)
    answers = []
    size = at_once(val.images, _BATCH)
    for begin in range(0, len(rows), size):
        part = slice(begin, begin + size)
        if new:
            kept[part] = network.fit(np.asarray(val.images[rows[part]]))
        logits = network.run(np.array(kept[part]))
        if logits.shape[1] != classes:
            raise UserError(
                f"{name} tells {logits.shape[1]} classes apart, and the validation images here have {classes}: give "
                "files of this dataset."
            )
        answers.append(logits.argmax(axis=1))
    return np.concatenate(answers)


@contextmanager
def _whole(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder that becomes ``folder`` when the block succeeds.

    Raises:
        UserError: it exists, the disk is full, or its place is not writable.
    """
    if folder.exists():
        raise UserError(f"{folder} exists already: name a new folder.")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as temporary:
            building = Path(temporary, folder.name)
            building.mkdir()
            yield building
            os.replace(building, folder)
    except OSError as error:
        raise translate_os_error(error, folder) from error
