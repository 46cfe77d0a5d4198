"""Whether a version works where this project is not, found out before production does.

Like TFX's InfraValidator: the very files are loaded and asked in a process of their own. It shows that they work; it is
no sandbox, for code that a model brings along runs with this user's rights.
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

from components.registry.policy.gates import Reason
from components.registry.versions import smoke_process
from components.registry.versions.files import VersionFiles

LIMIT_S = 120.0

_PROJECT = ("components", "flows")
# Nothing else of this process's environment is handed on: no address, no password, no PYTHONPATH.
_KEPT = ("PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL")
_SET = {
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
}
_SHOWN = 300
_SECONDS_TO_DIE = 5.0


def check(
    files: VersionFiles, probe_sha256: str | None, latency_ms_p95_max: float | None = None, limit_s: float = LIMIT_S
) -> Reason:
    """Load a version's files in a fresh process and compare its answers with those that evaluation recorded.

    The process starts in an empty folder with an environment of five variables and this project's packages out of
    reach. It refuses pickles, loads ``model.onnx`` in onnxruntime and the folder through MLflow's pyfunc, and asks both
    for all images of ``evaluation/probe.npz`` at once and one by one. It takes seconds, most of them to import MLflow.

    Args:
        files: the version's files, fetched and verified.
        probe_sha256: of the recorded answers, as the evaluation says; with None nothing passes.
        latency_ms_p95_max: the most that one image may take in onnxruntime with one thread, at p95; None for any time.
        limit_s: seconds after which the process is killed, with all that it started.

    Returns:
        The reason ``smoke``: passed, or the step at which it failed and why. Its value is the latency.
    """
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="reflux-smoke-") as temporary:
        empty, report, errors = (Path(temporary) / name for name in ("empty", "report", "errors"))
        empty.mkdir()
        request = {
            "folder": str(files.folder.resolve()),
            "probe_sha256": probe_sha256,
            "report": str(report),
            "blocked": _PROJECT,
            "latency_ms_p95_max": latency_ms_p95_max,
            "limit_s": limit_s,
        }
        code = _run([sys.executable, "-I", smoke_process.__file__, json.dumps(request)], empty, errors, limit_s)
        said = _lines(report)
        last = said[-1] if said else {}
        if "p95_ms" in last:
            seconds = time.monotonic() - began
            return _passed(last["images"], last["p95_ms"], latency_ms_p95_max, seconds)
        step = next((line["at"] for line in reversed(said) if "at" in line), "starting Python")
        why = last.get("failed") or _death(code, limit_s, errors)
    sentence = f"The smoke test in a fresh process failed at {step}: {why[:_SHOWN]}."
    return Reason("smoke", "max", latency_ms_p95_max, None, False, sentence)


def _passed(images: int, p95_ms: float, most: float | None, seconds: float) -> Reason:
    sentence = (
        f"A fresh process without this project loaded the files through MLflow and onnxruntime and gave the recorded "
        f"answers to all {images} images, in {p95_ms:.3g} ms each at p95 (smoke test, {seconds:.1f} s)."
    )
    return Reason("smoke", "max", most, p95_ms, True, sentence)


def _run(command: list[str], folder: Path, errors: Path, limit_s: float) -> int | None:
    """The command's exit code; None when it was killed because its time was up."""
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
    """Kill the process with all that it started; first those below it, which could not be found after it."""
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
    return [json.loads(line) for line in text.split("\n")[:-1]]  # what follows the last newline was cut short


def _death(code: int | None, limit_s: float, errors: Path) -> str:
    if code is None:
        return f"no answer within {limit_s:g} s, so it was killed"
    ended = (
        f"the process was ended by {signal.Signals(-code).name}" if code < 0 else f"the process ended with code {code}"
    )
    lines = errors.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return f"{ended} without a result ({lines[-1].strip()})" if lines else f"{ended} without a result"
