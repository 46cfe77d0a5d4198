"""Smoke test: does a version work without this project, as it must in production?

Like TFX's InfraValidator it loads the shipped files in a process of their own and lets them predict. This is not a
sandbox: code that a model brings along runs with this user's rights to files.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from reflux.components.core.contract import FORMATS
from reflux.components.core.export.network import code_of
from reflux.components.registry.policy.gates import Reason
from reflux.components.registry.versions import offline, smoke_process
from reflux.components.registry.versions.files import VersionFiles

LIMIT_S = 120.0

_PROJECT = ("reflux",)
# Nothing else of this process's environment is passed on: no address, no password, no PYTHONPATH.
_KEPT = ("PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL")
_SET = {
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
}
_MAX_CHARACTERS = 300
_SECONDS_TO_DIE = 5.0


def check(
    files: VersionFiles, probe_sha256: str | None, latency_ms_p95_max: float | None = None, limit_s: float = LIMIT_S
) -> Reason:
    """Load a version's files in a fresh process and compare its predictions with those that evaluation recorded.

    The process starts in an empty folder, with a minimal environment and without access to this project's packages or,
    where the system allows it, a network. It refuses pickles, loads the file in its own runtime and the folder through
    MLflow's pyfunc, and lets both predict the images of ``evaluation/probe.npz``, all at once and one by one. It takes
    seconds, most of them to import MLflow.

    Args:
        files: the version's files, fetched and verified.
        probe_sha256: hash of the recorded predictions, from the evaluation; with None nothing passes.
        latency_ms_p95_max: limit on the p95 latency of one image in the runtime with one thread; None for none.
        limit_s: seconds after which the process is killed, with all its children.

    Returns:
        The reason ``smoke``: passed, or the step at which it failed and the cause. Its value is the latency.
    """
    began, suffix = time.monotonic(), files.file.suffix
    runtime = FORMATS[suffix].runtime
    with tempfile.TemporaryDirectory(prefix="reflux-smoke-") as temporary:
        empty, report, errors = (Path(temporary) / name for name in ("empty", "report", "errors"))
        empty.mkdir()
        request = {
            "folder": str(files.folder.resolve()),
            "file": files.file.name,
            "runtime": runtime,
            "code": str(code_of(suffix)),
            "probe_sha256": probe_sha256,
            "report": str(report),
            "blocked": _PROJECT,
            "latency_ms_p95_max": latency_ms_p95_max,
            "limit_s": limit_s,
        }
        command = [sys.executable, "-I", offline.__file__, smoke_process.__file__, json.dumps(request)]
        code = _run(command, empty, errors, limit_s)
        lines = _lines(report)
        last = lines[-1] if lines else {}
        if "p95_ms" in last:
            seconds = time.monotonic() - began
            return _passed(runtime, last["network"], last["images"], last["p95_ms"], latency_ms_p95_max, seconds)
        step = next((line["at"] for line in reversed(lines) if "at" in line), "starting Python")
        why = last.get("failed") or _death(code, limit_s, errors)
    sentence = f"The smoke test in a fresh process failed at {step}: {why[:_MAX_CHARACTERS]}."
    return Reason("smoke", "max", latency_ms_p95_max, None, False, sentence)


def _passed(runtime: str, network: str, images: int, p95_ms: float, maximum: float | None, seconds: float) -> Reason:
    without = "without this project and without a network" if network == "offline" else "without this project"
    sentence = (
        f"A fresh process {without} loaded the files through MLflow and {runtime} and gave the recorded answers to all "
        f"{images} probe images, in {p95_ms:.3g} ms each at p95 (smoke test, {seconds:.1f} s)."
    )
    return Reason("smoke", "max", maximum, p95_ms, True, sentence)


def _run(command: list[str], folder: Path, errors: Path, limit_s: float) -> int | None:
    """Run a command; returns its exit code, or None if it was killed because its time was up."""
    environment = {name: os.environ[name] for name in _KEPT if name in os.environ}
    environment |= {"HOME": str(folder), "TMPDIR": str(folder)} | _SET
    with errors.open("wb") as stderr:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            start_new_session=True,
        )
    try:
        return process.wait(timeout=limit_s)
    except subprocess.TimeoutExpired:
        return None
    finally:
        _end(process)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Kill a process and its children; the children first, as they can't be found after their parent."""
    with suppress(psutil.NoSuchProcess):
        children = psutil.Process(process.pid).children(recursive=True)
        for child in children:
            with suppress(psutil.NoSuchProcess):
                child.kill()
        psutil.wait_procs(children, timeout=_SECONDS_TO_DIE)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _lines(report: Path) -> list[dict[str, Any]]:
    text = report.read_text(encoding="utf-8") if report.is_file() else ""
    # A process that was killed may have written part of a line.
    return [json.loads(line) for line in text.split("\n")[:-1]]


def _death(code: int | None, limit_s: float, errors: Path) -> str:
    if code is None:
        return f"no answer within {limit_s:g} s, so it was killed"
    ended = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
    lines = errors.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return f"the process {ended} without a result" + (f" ({lines[-1].strip()})" if lines else "")
