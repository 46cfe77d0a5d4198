"""The smoke test's own test: real processes, each with something that production would stumble over."""

import os
import socket
import subprocess
import sys
import time
from textwrap import dedent

import mlflow.onnx
import mlflow.pyfunc
import numpy as np
import onnx
import psutil
import pytest
from ruamel.yaml import YAML

from reflux.components.core.artifacts import sha256_file
from reflux.components.registry.versions import smoke, smoke_process
from reflux.components.registry.versions.files import VersionFiles
from tests.containers import no_network_of_its_own
from tests.trees import is_alive

pytestmark = pytest.mark.slow

SIDE, CLASSES, N = 8, 3, 12
PIXELS = np.eye(SIDE * SIDE, dtype=np.uint8)[:N].reshape(N, 1, SIDE, SIDE) * 255
ANSWERS = np.arange(N) % CLASSES


@pytest.fixture
def version(tmp_path, write_table_network) -> VersionFiles:
    """A version as ``register`` leaves it: the ONNX file, its MLflow flavours, the recorded answers."""
    folder = tmp_path / "version"
    network = onnx.load(write_table_network(tmp_path / "student.onnx", ANSWERS, side=SIDE))
    mlflow.onnx.save_model(network, folder, pip_requirements=[], save_as_external_data=False)
    keep_probe(folder, PIXELS, ANSWERS)
    return VersionFiles(1, folder, "0" * 64, {})


def keep_probe(folder, pixels, predicted):
    (folder / "evaluation").mkdir(exist_ok=True)
    np.savez(folder / "evaluation" / "probe.npz", pixels=pixels, predicted=predicted)


def check(version, **others):
    """The smoke test with the hash that the recorded answers have now."""
    path = version.folder / "evaluation" / "probe.npz"
    return smoke.check(version, sha256_file(path) if path.is_file() else "0" * 64, **others)


def serve_with(version, module: str, **conf) -> None:
    """Let MLflow load the folder through another module."""
    path, yaml = version.folder / "MLmodel", YAML()
    document = yaml.load(path.read_text())
    document["flavors"]["python_function"] |= {"loader_module": module, **conf}
    with path.open("w") as file:
        yaml.dump(document, file)


def serve_by(version, code: str) -> None:
    """Let MLflow run code that the version brings."""
    (version.folder / "code").mkdir()
    (version.folder / "code" / "brought.py").write_text(dedent(code))
    serve_with(version, "brought", code="code")


def test_a_sound_version_passes_and_says_how_fast_it_answers(version, monkeypatch):
    # This very environment has the project on the path of every process, isolated or not.
    find = "import importlib.util, sys; sys.exit(importlib.util.find_spec('reflux') is None)"
    assert subprocess.run([sys.executable, "-I", "-c", find], cwd=version.folder, check=False).returncode == 0
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://ada:secret@127.0.0.1:9")

    reason = check(version, latency_ms_p95_max=1000)

    assert reason.passed, reason.sentence
    assert ("and without a network loaded" in reason.sentence) is not bool(no_network_of_its_own())
    assert (reason.gate, reason.side, reason.limit) == ("smoke", "max", 1000)
    assert 0 < reason.value < 1000
    assert "gave the recorded answers to all 12 probe images" in reason.sentence


def test_code_of_this_project_is_out_of_reach(version):
    serve_with(version, "reflux.components.registry.predict")
    reason = check(version)
    assert reason.passed is False
    assert reason.sentence == (
        "The smoke test in a fresh process failed at loading the folder through MLflow's pyfunc: it imports "
        "reflux, code of this project, which production does not have."
    )


def test_a_pickle_is_refused(version, tmp_path):
    class Pickled(mlflow.pyfunc.PythonModel):
        def predict(self, context, model_input, params=None):
            return {"logits": np.zeros((len(model_input), CLASSES), np.float32)}

    mlflow.pyfunc.save_model(tmp_path / "pickled", python_model=Pickled(), pip_requirements=[])
    for name in ("MLmodel", "python_model.pkl"):
        (version.folder / name).write_bytes((tmp_path / "pickled" / name).read_bytes())
    reason = check(version)
    assert reason.passed is False
    assert "loading the folder through MLflow's pyfunc" in reason.sentence
    assert "pickle is disallowed" in reason.sentence


def test_a_folder_that_answers_otherwise_than_its_onnx_file_is_found(version):
    serve_by(
        version,
        """
        import numpy as np
        class Model:
            def predict(self, pixels, params=None):
                return {"logits": np.eye(3, dtype=np.float32)[np.zeros(len(pixels), int)]}
        def _load_pyfunc(path):
            return Model()
        """,
    )
    reason = check(version)
    assert "answering through MLflow's pyfunc: a batch of 12 gets 8 other classes than" in reason.sentence


def test_code_of_a_version_finds_no_secret_in_its_environment(version, monkeypatch):
    secrets = {"REFLUX_SIGNING_KEY", "MLFLOW_TRACKING_PASSWORD", "AWS_SECRET_ACCESS_KEY", "ANY_OTHER"}
    for name in secrets:
        monkeypatch.setenv(name, "secret")
    find = f"', '.join(sorted(os.environ.keys() & {secrets | {'HOME', 'PATH'}!r}))"
    serve_by(version, f"import os\ndef _load_pyfunc(path):\n    raise RuntimeError('found: ' + {find})")
    assert "RuntimeError: found: HOME, PATH." in check(version).sentence


def test_code_of_a_version_reads_what_its_user_may(version, tmp_path):
    (tmp_path / "credentials").write_text("of this user")
    read = f"open({str(tmp_path / 'credentials')!r}).read()"
    serve_by(version, f"def _load_pyfunc(path):\n    raise RuntimeError({read})")
    assert "RuntimeError: of this user." in check(version).sentence


def test_code_of_a_version_reaches_no_network_and_no_other_process_where_namespaces_are_allowed(version):
    if why_not := no_network_of_its_own():
        pytest.skip(why_not)
    with socket.create_server(("127.0.0.1", 0)) as server:
        reach = f"""
        import os, socket
        from pathlib import Path
        def attempt(what):
            try:
                return str(what())
            except OSError as error:
                return error.strerror
        def _load_pyfunc(path):
            socket_ = attempt(lambda: socket.create_connection({server.getsockname()!r}, timeout=5))
            environment = attempt(lambda: Path("/proc/{os.getpid()}/environ").read_bytes())
            raise RuntimeError(f"{{socket_}}, {{environment}}")
        """
        serve_by(version, reach)
        assert "pyfunc: RuntimeError: Network is unreachable, Permission denied" in check(version).sentence
        server.settimeout(0)
        with pytest.raises(BlockingIOError):
            server.accept()
        # The same code in a process that was not isolated, so that it is this that keeps it in.
        outside = f"{dedent(reach)}\n_load_pyfunc(None)"
        done = subprocess.run([sys.executable, "-c", outside], capture_output=True, text=True, check=False)
        assert "RuntimeError: <socket.socket " in done.stderr and "PATH=" in done.stderr


def test_answers_that_evaluation_did_not_record_are_counted(version):
    keep_probe(version.folder, PIXELS, (ANSWERS + np.eye(N, dtype=int)[0]) % CLASSES)
    reason = check(version)
    assert reason.passed is False
    assert "answering in onnxruntime: a batch of 12 gets 1 other classes than the evaluation" in reason.sentence


def test_a_tie_may_fall_either_way(version):
    keep_probe(version.folder, np.zeros((1, 1, SIDE, SIDE), np.uint8), np.array([2]))
    recorded = sha256_file(version.folder / "evaluation" / "probe.npz")
    pixels, predicted = smoke_process.probe(version.folder, recorded)
    logits = np.array([[0.5, 0.1, 0.49999]], np.float32)
    smoke_process.compare(lambda batch: logits.repeat(len(batch), axis=0), pixels, predicted)
    with pytest.raises(smoke_process.Failed, match="gets 2 other classes"):
        smoke_process.compare(lambda batch: logits.repeat(len(batch), axis=0), pixels, predicted - 1)


def test_a_version_without_recorded_answers_is_refused(version):
    (version.folder / "evaluation" / "probe.npz").unlink()
    reason = check(version)
    assert (reason.passed, reason.value) == (False, None)
    assert "failed at reading evaluation/probe.npz: it is missing" in reason.sentence


def test_recorded_answers_that_were_changed_or_have_no_hash_are_refused(version):
    path = version.folder / "evaluation" / "probe.npz"
    recorded = sha256_file(path)
    keep_probe(version.folder, PIXELS[:1], ANSWERS[:1])  # fewer questions, all answered rightly
    for expected in (recorded, None):
        reason = smoke.check(version, expected)
        assert (reason.passed, reason.value) == (False, None)
        assert f"reading evaluation/probe.npz: it was changed (sha256 {sha256_file(path)[:12]}…" in reason.sentence


def test_recorded_answers_are_never_unpickled(version):
    np.savez(version.folder / "evaluation" / "probe.npz", pixels=PIXELS, predicted=np.array([{}] * N, object))
    reason = check(version)
    assert reason.passed is False
    assert "allow_pickle=False" in reason.sentence


def test_a_slow_version_misses_the_gate(version):
    reason = check(version, latency_ms_p95_max=1e-6)
    assert reason.passed is False
    assert "timing onnxruntime: one image takes" in reason.sentence
    assert "and the maximum is 1e-06 ms" in reason.sentence


def test_a_hang_ends_with_the_time(version):
    (version.folder / "model.onnx").unlink()
    os.mkfifo(version.folder / "model.onnx")  # a reader waits for ever
    began = time.monotonic()
    reason = check(version, limit_s=3)
    assert time.monotonic() - began < 30
    assert reason.passed is False
    assert "failed at loading model.onnx in onnxruntime: no answer within 3 s, so it was killed." in reason.sentence


def test_all_that_it_started_ends_with_it(tmp_path):
    script = tmp_path / "spawns.py"
    script.write_text(
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True)\n"
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(child.pid))\n"
        "time.sleep(600)\n"
    )
    command = [sys.executable, "-S", str(script)]
    assert smoke._run(command, tmp_path, tmp_path / "errors", limit_s=3) is None
    pid = int((tmp_path / "pid").read_text())
    assert not psutil.pid_exists(pid) or not is_alive(psutil.Process(pid))


def test_a_death_without_a_word_is_told(version, monkeypatch, tmp_path):
    dies = tmp_path / "dies.py"
    dies.write_text("import os, sys; print('out of memory', file=sys.stderr, flush=True); os.kill(os.getpid(), 9)")
    monkeypatch.setattr(smoke.smoke_process, "__file__", str(dies))
    reason = check(version)
    assert reason.sentence == (
        "The smoke test in a fresh process failed at starting Python: the process was ended by SIGKILL without a "
        "result (out of memory)."
    )
