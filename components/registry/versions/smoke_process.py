"""The process of the smoke test: a version's files without this project, as in production.

:mod:`reflux.components.registry.versions.smoke` starts it as ``python -I smoke_process.py REQUEST NETWORK``, by way of
``offline``, whose result NETWORK is. It imports nothing of the project but a copy of one module, and nothing that it
loads can. REQUEST is JSON: ``folder`` (of the version's
files), ``file`` (the name of the one that answers), ``runtime`` (its name), ``code`` (a module that loads such a file),
``probe_sha256`` (hash of the recorded predictions), ``report`` (the file that gets a line of JSON at each step, so that
one can see where a process hung or died), ``blocked`` (packages that can't be imported), ``latency_ms_p95_max`` (or
null) and ``limit_s``.
"""

import hashlib
import io
import json
import runpy
import signal
import sys
import time
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
Classes = npt.NDArray[np.int64]
Answer = Callable[[Pixels], npt.NDArray[np.float32]]

_ALONE = 8  # images that are also predicted one by one
_TIE = 1e-4  # logits this close may be ordered differently on another machine
_ROUNDS = 3  # another process's burst slows down one round, a slow file all of them
_RUNS, _WARM_UP = 100, 10
_ROUND_S = 5.0


class Failed(Exception):
    """The version does not do what its evaluation states."""


class Blocked(MetaPathFinder):
    """An import hook that refuses some packages, wherever they are installed.

    An editable install puts this project on the path of every process of its environment, ``-I`` or not.
    """

    def __init__(self, packages: Sequence[str]) -> None:
        self.packages = frozenset(packages)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname.partition(".")[0] in self.packages:
            raise ModuleNotFoundError(f"it imports {fullname}, code of this project, which production does not have")
        return None


def examine(
    folder: Path,
    file: str,
    runtime: str,
    code: str,
    probe_sha256: str | None,
    latency_ms_p95_max: float | None,
    at: Callable[[str], None],
) -> tuple[int, float]:
    """Load the file in its runtime and the folder through MLflow, and compare their predictions with the recorded ones.

    Args:
        folder: an MLflow model with ``file`` and ``evaluation/probe.npz``.
        file: its name.
        runtime: likewise.
        code: a module of ``reflux.components.core.export.formats``.
        probe_sha256: hash of the recorded predictions, from the evaluation.
        latency_ms_p95_max: limit on the p95 latency of one image in the runtime; None for none.
        at: called with the name of each step before it begins.

    Returns:
        The number of images, and the latency at p95 in milliseconds.

    Raises:
        Failed: a prediction is wrong or too slow.
    """
    at("reading evaluation/probe.npz")
    pixels, predicted = probe(folder, probe_sha256)
    at(f"loading {file} in {runtime}")
    run, _, _ = runpy.run_path(code)["load"](folder / file, threads=1)
    at(f"answering in {runtime}")
    compare(run, pixels, predicted)
    at(f"timing {runtime}")
    p95 = latency(run, pixels, latency_ms_p95_max)
    at("loading the folder through MLflow's pyfunc")
    import mlflow.pyfunc

    # Its warnings are of package versions, for which it reads the metadata of all that is installed: half a second.
    served = mlflow.pyfunc.load_model(str(folder), suppress_warnings=True)
    at("answering through MLflow's pyfunc")
    compare(lambda batch: np.asarray(served.predict(batch)["logits"]), pixels, predicted)
    return len(pixels), p95


def probe(folder: Path, sha256: str | None) -> tuple[Pixels, Classes]:
    """Read the pixels uint8 [N, C, H, W] and the classes int64 [N] that evaluation recorded; at least two rows.

    Raises:
        Failed: the file is missing, has another sha256, or is empty.
    """
    path = folder / "evaluation" / "probe.npz"
    if not path.is_file():
        raise Failed("it is missing, so the file's predictions can't be checked: evaluate again (`reflux run`)")
    content = path.read_bytes()
    if (actual := hashlib.sha256(content).hexdigest()) != sha256:
        raise Failed(f"it was changed (sha256 {actual[:12]}…, its evaluation says {str(sha256)[:12]}…)")
    with np.load(io.BytesIO(content), allow_pickle=False) as kept:
        pixels, predicted = kept["pixels"], kept["predicted"]
    if not len(pixels) or len(pixels) != len(predicted):
        raise Failed(f"it holds {len(pixels)} images and {len(predicted)} answers")
    return (np.repeat(pixels, 2, axis=0), predicted.repeat(2)) if len(pixels) == 1 else (pixels, predicted)


def compare(answer: Answer, pixels: Pixels, predicted: Classes) -> None:
    """Predict all images at once, and the first few one by one.

    Raises:
        Failed: the output is not finite logits [N, classes], or the classes are not the recorded ones.
    """
    for size, batches in ((len(pixels), 1), (1, min(_ALONE, len(pixels)))):
        for start in range(batches):
            part = slice(start, start + size)
            batch = f"a batch of {size}"
            logits = answer(pixels[part])
            if logits.ndim != 2 or len(logits) != size or logits.shape[1] <= predicted.max():
                raise Failed(f"{batch} gets an answer of shape {logits.shape}, not logits [{size}, classes]")
            if not np.isfinite(logits).all():
                raise Failed(f"{batch} gets logits that are not finite")
            recorded = np.take_along_axis(logits, predicted[part, None], axis=1)[:, 0]
            if wrong := int((logits.max(axis=1) - recorded > _TIE).sum()):
                raise Failed(f"{batch} gets {wrong} other classes than the evaluation recorded")


def latency(run: Callable[[Pixels], object], pixels: Pixels, maximum: float | None) -> float:
    """Measure the 95th percentile, in milliseconds, of single images.

    A round is repeated only if it was too slow, so that other work on the machine does not make a model fail.

    Raises:
        Failed: every round was slower than ``maximum``.
    """
    images = [pixels[row : row + 1] for row in range(len(pixels))]
    for row in range(_WARM_UP):
        run(images[row % len(images)])
    best = np.inf
    for _ in range(_ROUNDS):
        times: list[float] = []
        began = time.perf_counter()
        while len(times) < _RUNS and time.perf_counter() - began < _ROUND_S:
            start = time.perf_counter()
            run(images[len(times) % len(images)])
            times.append(time.perf_counter() - start)
        best = min(best, 1000 * float(np.percentile(times, 95)))
        if maximum is None or best <= maximum:
            return best
    raise Failed(f"one image takes {best:.3g} ms at p95, and the maximum is {maximum:g} ms")


def main(request: dict[str, Any], network: str) -> None:
    """Examine the folder and write the result as the last line of the report."""
    signal.alarm(int(request["limit_s"]) + 5)  # the process that started this one may be gone by then

    def report(**values: Any) -> None:
        with Path(request["report"]).open("a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")

    sys.meta_path.insert(0, Blocked(request["blocked"]))
    try:
        names = ("file", "runtime", "code", "probe_sha256", "latency_ms_p95_max")
        given = {name: request[name] for name in names}
        images, p95 = examine(Path(request["folder"]), **given, at=lambda step: report(at=step))
    except Failed as failed:
        report(failed=str(failed))
    except BaseException as error:
        first = (str(error).strip().splitlines() or [""])[0]
        report(failed=first if isinstance(error, ModuleNotFoundError) else f"{type(error).__name__}: {first}")
    else:
        report(images=images, p95_ms=p95, network=network)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), sys.argv[2])
