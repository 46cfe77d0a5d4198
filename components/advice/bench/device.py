"""Measure the files in this folder on this device: ``python bench.py --device pi5`` writes ``report-pi5.json``.

It needs Python 3.11 or newer and what requirements.txt names: NumPy and the files' runtimes. A file is left out if its
runtime is not installed or can't run it. `reflux bench --import report-pi5.json` takes the report where the files come
from. Files are timed in turn, so that what slows the device slows all of them.
"""

import argparse
import hashlib
import json
import os
import platform
import re
import runpy
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_BATCH = 256
_TIMED_IMAGES = 32
_SECONDS_A_SETTING = 15.0  # at most about so many for all files at one number of threads and images
_FEWEST_RUNS = 3

Facts = Mapping[str, Any]
Run = Callable[[Any], Any]


class Refused(Exception):
    """One sentence that says what is wrong."""


def measure(plan: Facts) -> list[dict[str, Any]]:
    """Measure the files of the plan, ``plan.json``, against the first that runs here: a row for each.

    Raises:
        Refused: none runs here, or the device has fewer cores than threads are to be measured.
    """
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    if max(plan["threads"]) > cores:
        raise Refused(f"{max(plan['threads'])} threads are more than the {cores} cores of this device.")
    files = [file for file in plan["files"] if not _left_out(file)]
    if not files:
        raise Refused("No file can be measured: install what requirements.txt names.")
    labels = np.load(HERE / "images" / "labels.npy")
    predicted: list[Any] = []
    speeds: list[list[dict[str, float]]] = [[] for _ in files]
    for threads in plan["threads"]:
        runs = [_load(file, threads) for file in files]
        for file, run in zip(files, runs, strict=True) if not predicted else ():
            _say(f"{file['name']}: accuracy")
            predicted.append(_classes(run, _pixels(file)))
        for batch in plan["batches"]:
            _say(f"speed with {threads} thread{'s' * (threads > 1)}, {batch} image{'s' * (batch > 1)} at once")
            for number, speed in enumerate(_race(runs, files, threads, batch)):
                speeds[number].append({"threads": threads, "batch": batch, **speed})
    rows = []
    for file, classes, times in zip(files, predicted, speeds, strict=True):
        _say(f"{file['name']}: load and memory")
        rows.append(
            {
                **{"name": file["name"], "runtime": file["runtime"], "runtime_version": _release(file["runtime"])},
                **{"sha256": _sha256(HERE / file["path"]), "size_bytes": (HERE / file["path"]).stat().st_size},
                "accuracy": float((classes == labels).mean()),
                "agreement": float((classes == predicted[0]).mean()),
                "reproduced": float((classes == np.load(HERE / file["answers"])).mean()),
                **_in_own_process(file["name"]),
                "speeds": times,
            }
        )
    return rows


def alone(file: Facts, images: int) -> dict[str, float | None]:
    """Load a file and run it once, in a process that does nothing else.

    Returns:
        ``load_ms``, processor time from the file to its first logits, without the runtime's own import; and ``peak_mb``
        of the process, Python and the runtime included, in 1,048,576 bytes.
    """
    pixels = _timed(file, images)[:images]
    _module(file["runtime"])  # before the clock runs
    began = time.process_time()
    _load(file, threads=1)(pixels)
    load_ms = 1000 * (time.process_time() - began)
    return {"load_ms": load_ms, "peak_mb": _peak_mb()}


def _left_out(file: Facts) -> bool:
    """Tell if a file can't run here, and print why."""
    try:
        _module(file["runtime"])
    except ImportError:
        print(f"{file['name']} is left out: {file['runtime']} is not installed here.", flush=True)
        return True
    try:
        _load(file, threads=1)(_timed(file, 1)[:1])
    except Exception as error:  # the runtimes' errors share no base but this
        first = (str(error).splitlines() or [type(error).__name__])[0]
        print(f"{file['name']} is left out: {file['runtime']} can't run it ({first}).", flush=True)
        return True
    return False


def _load(file: Facts, threads: int) -> Run:
    run: Run = runpy.run_path(str(HERE / file["code"]))["load"](HERE / file["path"], threads)[0]
    return run


def _pixels(file: Facts) -> Any:
    return np.load(HERE / file["pixels"], mmap_mode="r")


def _timed(file: Facts, batch: int) -> Any:
    """The images that are timed: at least one batch, repeated where there are fewer."""
    pixels = _pixels(file)
    return pixels[np.arange(max(_TIMED_IMAGES, batch)) % len(pixels)]


def _classes(run: Run, pixels: Any) -> Any:
    parts = [run(np.array(pixels[begin : begin + _BATCH])) for begin in range(0, len(pixels), _BATCH)]
    return np.concatenate(parts).argmax(axis=1)


def _race(runs: Sequence[Run], files: Sequence[Facts], threads: int, batch: int) -> list[dict[str, float]]:
    timing = runpy.run_path(str(HERE / "timing.py"))
    turns = [timing["batch_of"](run, _timed(file, batch), batch) for run, file in zip(runs, files, strict=True)]
    for turn in turns:
        turn(0)  # the first run allocates
    began = time.perf_counter()
    for turn in turns:
        turn(1)
    affords = int(_SECONDS_A_SETTING / timing["ROUNDS"] / (time.perf_counter() - began))
    repeats = max(_FEWEST_RUNS, min(timing["RUNS"], affords))
    taken = timing["in_turn"](turns, repeats, block=repeats, threads=threads)
    speeds = []
    for number in range(len(runs)):
        middle, late = np.percentile(taken.wall[..., number], [50, 95]) * 1000
        times = {"ms_p50": middle, "ms_p95": late, "cpu_ms": np.median(taken.cpu[..., number]) * 1000}
        times |= dict(zip(("cpu", "cpu_low", "cpu_high"), taken.ratio(number, 0), strict=True))
        speeds.append({name: float(value) for name, value in times.items()})
    return speeds


def _in_own_process(name: str) -> dict[str, float | None]:
    done = subprocess.run([sys.executable, __file__, "--alone", name], check=True, capture_output=True, text=True)
    facts: dict[str, float | None] = json.loads(done.stdout)
    return facts


def _peak_mb() -> float | None:
    """The most memory that this process had; on Linux ``ru_maxrss`` would count what its parent had at the fork."""
    if (status := Path("/proc/self/status")).is_file():
        return int(status.read_text(encoding="utf-8").partition("VmHWM:")[2].split()[0]) / 1024
    try:
        import resource
    except ImportError:  # Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # macOS counts bytes


def _module(package: str) -> Any:
    return import_module(package.replace("-", "_"))


def _release(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:  # built by hand, or from a wheel of another name
        return str(getattr(_module(package), "__version__", "unknown"))


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _say(words: str) -> None:
    print(f"{words} …", flush=True)


def main(arguments: Sequence[str]) -> None:
    """Measure, and write the report.

    Raises:
        Refused: nothing can be measured.
    """
    parser = argparse.ArgumentParser(description=(__doc__ or "").replace("``", ""))
    parser.add_argument("--device", help="its name, as in registry.gates: letters, digits and . _ -")
    parser.add_argument("--alone", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    plan = json.loads((HERE / "plan.json").read_text(encoding="utf-8"))
    if given.alone is not None:
        file = next(file for file in plan["files"] if file["name"] == given.alone)
        print(json.dumps(alone(file, max(plan["batches"]))))
        return
    if not re.fullmatch(_NAME, given.device or ""):
        raise Refused("Name the device by letters, digits and . _ -: python bench.py --device pi5")
    report = {
        **{"format": plan["format"], "project": plan["project"], "device": given.device},
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": platform.machine(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "images": plan["images"],
        "rows": measure(plan),
    }
    path = HERE / f"report-{given.device}.json"
    temporary = path.with_suffix(".part")
    temporary.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    os.replace(temporary, path)
    print(f"{path} is the report: `reflux bench --import {path.name}` reads it.")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except Refused as refused:
        print(f"Error: {refused}", file=sys.stderr)
        sys.exit(2)
