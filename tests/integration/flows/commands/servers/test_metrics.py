"""``reflux metrics`` on a real MLflow, as text and served."""

import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from reflux.components.core.params.file import override_params
from reflux.components.core.runtime.tracking import experiment_id
from reflux.components.observe.monitor import report
from reflux.components.registry import client
from reflux.components.registry.ledger import ledger
from reflux.components.registry.ledger.ledger import Intent
from reflux.flows.local.prefect_server import free_port
from tests.workspaces import until

PARAMS = Path(__file__).parents[5] / "params.yaml"
OBSERVABILITY = PARAMS.with_name("infra") / "observability"
MODEL = "shapes-student"


@pytest.fixture
def project(mlflow_home) -> Path:
    """A project whose second version is the champion, and what its runs have left in MLflow."""
    shutil.copy(PARAMS, mlflow_home)
    override_params(["project.name=shapes", f"registry.model_name={MODEL}", "registry.gates.accuracy.min=0.9"])
    mlflow = client.connect()
    for status, minutes in (("FINISHED", 3), ("FAILED", 1)):
        end_run(mlflow, "shapes", {"run_kind": "pipeline"}, status, minutes)
    end_run(mlflow, "shapes", {"role": "teacher"}, "FINISHED", 9)
    mlflow.create_run(experiment_id(mlflow, "shapes"), tags={"run_kind": "pipeline"})  # at work
    mlflow.create_registered_model(MODEL)
    for accuracy in ("0.8", "0.85"):
        mlflow.create_model_version(MODEL, "files:/nowhere", tags={"accuracy": accuracy, "size_bytes": "56000"})
    mlflow.set_registered_model_alias(MODEL, "champion", "2")
    for version, outcome in ((1, "promoted"), (2, "promoted"), (1, "rejected")):
        at = datetime.now(UTC).isoformat()
        ledger.end(mlflow, ledger.begin(mlflow, "shapes", intent(version, outcome, at)), outcome)
    ledger.begin(mlflow, "shapes", intent(2, "promoted", at))  # not carried out yet
    for champion, differs in ((2, "true"), (1, "false")):
        tags = {"champion": str(champion), "model": MODEL, "differs": differs}
        end_run(mlflow, report.experiment("shapes"), tags, "FINISHED", 1, {"distance/brightness": 0.3, "new_images": 9})
    return mlflow_home


@pytest.fixture
def alone(tmp_path, monkeypatch) -> None:
    """A project whose MLflow is away."""
    shutil.copy(PARAMS, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    for name in ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_HTTP_REQUEST_TIMEOUT"):
        monkeypatch.setenv(name, "")  # and so put back afterwards, whatever the command sets
        monkeypatch.delenv(name)
    override_params([f"registry.model_name={MODEL}"])


def intent(version: int, outcome: str, at: str) -> Intent:
    return Intent("promote", MODEL, version, outcome, "n", "", at, None, None, "", "")


def end_run(mlflow, experiment: str, tags: dict, status: str, minutes: int, metrics: dict | None = None) -> None:
    """A run that began at a fixed time and took ``minutes``."""
    run = mlflow.create_run(experiment_id(mlflow, experiment), start_time=1_000_000 + minutes, tags=tags)
    for name, value in (metrics or {}).items():
        mlflow.log_metric(run.info.run_id, name, value)
    mlflow.set_terminated(run.info.run_id, status, 1_000_000 + minutes + 60_000 * minutes)


def parsed(text: str) -> dict[str, float]:
    """Samples that are not zero, by ``name label``."""
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    assert {sample.labels.pop("model") for sample in samples} == {MODEL}
    return {" ".join([sample.name, *sample.labels.values()]): sample.value for sample in samples if sample.value}


def test_the_text_says_what_mlflow_holds(project, call_reflux):
    code, out, err = call_reflux("metrics")
    assert (code, err) == (0, "")
    found = parsed(out)
    assert 0 < found.pop("reflux_champion_age_seconds") < 600
    assert 0 < found.pop("reflux_open_attempt_age_seconds") < 600
    assert found.pop("reflux_last_decision_timestamp_seconds") > 1_700_000_000
    assert found == {
        "reflux_up": 1,
        "reflux_champion_version": 2,
        "reflux_champion_accuracy_ratio": 0.85,
        "reflux_champion_size_bytes": 56_000,
        "reflux_accuracy_gate_ratio": 0.9,
        "reflux_last_decision rejected": 1,
        "reflux_open_attempts": 1,
        "reflux_last_retrain FINISHED": 1,
        "reflux_last_retrain_end_timestamp_seconds": 1180.003,
        "reflux_last_retrain_duration_seconds": 180,
        "reflux_drift_detected": 1,
        "reflux_drift_distance brightness": 0.3,
        "reflux_drift_new_images": 9,
        "reflux_drift_check_timestamp_seconds": 1000.001,
    }
    override_params(["registry.model_name=another"])
    assert parsed(call_reflux("metrics")[1].replace("another", MODEL)).keys() == {  # samples that are not zero
        "reflux_up",
        "reflux_accuracy_gate_ratio",
        "reflux_last_retrain FINISHED",
        "reflux_last_retrain_end_timestamp_seconds",
        "reflux_last_retrain_duration_seconds",
    }


def test_an_alias_moved_by_hand_an_attempt_closed_as_failed_and_events_that_wait_are_seen(
    project, call_reflux, monkeypatch
):
    mlflow = client.connect()
    ((attempt, _),) = ledger.open_attempts(mlflow, "shapes", MODEL)
    ledger.end(mlflow, attempt, "failed", "nobody can settle it")
    found = parsed(call_reflux("metrics")[1])
    assert not found.keys() & {"reflux_open_attempts", "reflux_open_attempt_age_seconds", "reflux_events_waiting"}
    assert found["reflux_last_failed_attempt_timestamp_seconds"] > 1_700_000_000
    assert "reflux_aliases_moved_by_hand" not in found
    mlflow.set_registered_model_alias(MODEL, "champion", "1")
    for folder, at in ((".reflux", 2), ("machine/cpu/kept/shapes", 1), ("machine/cpu/kept/other", 0)):
        path = Path(folder, "outbox/hooks", f"{at * 10**9}-id.slack.json")
        path.parent.mkdir(parents=True)
        path.write_text("{}")
    monkeypatch.setenv("REFLUX_HOME", "machine")
    found = parsed(call_reflux("metrics")[1])
    assert found["reflux_aliases_moved_by_hand"] == 1
    assert found["reflux_events_waiting"] == 2
    assert found["reflux_event_age_seconds"] > 1_700_000_000


def test_an_mlflow_that_is_away_is_a_metric_and_a_note(alone, call_reflux):
    code, out, err = call_reflux("metrics")
    assert code == 0
    assert [line for line in out.splitlines() if not line.startswith("#")] == [f'reflux_up{{model="{MODEL}"}} 0.0']
    assert err.startswith("Note: MLflow at http://127.0.0.1:9 does not answer")


def test_they_are_those_of_the_pipeline_that_is_named(alone, call_reflux, monkeypatch):
    for folder in (".dvc", "pipelines/pets"):
        Path(folder).mkdir(parents=True)
    pets = Path(shutil.copy(PARAMS, "pipelines/pets"))
    override_params(["registry.model_name=pets-student"], pets)
    monkeypatch.setenv("REFLUX_PIPELINE", "pets")
    assert 'reflux_up{model="pets-student"} 0.0' in call_reflux("metrics")[1]


def test_an_mlflow_that_never_answers_is_asked_once_as_a_scrape_waits_only_so_long(alone, call_reflux, monkeypatch):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
        code, out, _ = call_reflux("metrics")
        assert code == 0
        assert "reflux_up" in out
        silent.accept()[0].close()
        silent.settimeout(0.1)
        with pytest.raises(TimeoutError):
            silent.accept()


def test_a_port_that_is_taken_is_named(alone, call_reflux):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        port = other.getsockname()[1]
        code, out, err = call_reflux("metrics", "--port", str(port))
    assert (code, out) == (2, "")
    assert err == f"Error: 127.0.0.1:{port} can't be used (Address already in use): choose another --port or --host.\n"


@contextmanager
def served(port: int) -> Iterator["subprocess.Popen[bytes]"]:
    """The command as a process that serves."""
    process = subprocess.Popen([sys.executable, "-m", "reflux.flows.cli", "metrics", "--port", str(port)])
    try:
        until(lambda: scraped(port))
        yield process
    finally:
        process.terminate()
        assert process.wait(60) == 0


@pytest.mark.slow
def test_they_are_served_on_loopback_until_the_command_is_stopped(project):
    with served(port := free_port()):
        assert parsed(str(scraped(port)))["reflux_champion_version"] == 2
        with socket.socket() as elsewhere:
            elsewhere.bind(("127.0.0.2", port))


def scraped(port: int) -> str | None:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=60).raise_for_status().text
    except httpx.ConnectError:
        return None


@pytest.mark.long
def test_a_real_prometheus_scrapes_them_fires_the_alerts_that_are_due_and_answers_the_dashboard(project, tmp_path):
    if (prometheus := shutil.which("prometheus")) is None:
        pytest.skip("NO PROMETHEUS: install Debian's prometheus to see it scrape the exporter")
    shutil.copy(OBSERVABILITY / "alerts.yaml", tmp_path)
    ((attempt, _),) = ledger.open_attempts(client.connect(), "shapes", MODEL)
    ledger.end(client.connect(), attempt, "failed", "nobody can settle it")
    with served(port := free_port()):
        job = {"job_name": "reflux", "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}
        settings = {"scrape_interval": "2s", "evaluation_interval": "2s"}
        config = {"global": settings, "rule_files": ["alerts.yaml"], "scrape_configs": [job]}
        (tmp_path / "prometheus.yaml").write_text(json.dumps(config))
        listen = f"127.0.0.1:{free_port()}"
        options = ["--config.file=prometheus.yaml", "--storage.tsdb.path=data", f"--web.listen-address={listen}"]
        process = subprocess.Popen([prometheus, *options], cwd=tmp_path, stderr=subprocess.DEVNULL)
        try:

            def query(expression: str) -> list[dict]:
                try:
                    answer = httpx.get(f"http://{listen}/api/v1/query", params={"query": expression}, timeout=60)
                except httpx.ConnectError:
                    return []
                return answer.json()["data"]["result"] if answer.is_success else []

            # The champion is below its gate, its data drifts, its retrain ended in 1970, an attempt was not settled.
            due = {"RefluxAccuracyBelowGate", "RefluxAttemptFailed", "RefluxDataDrift", "RefluxRetrainMissing"}
            firing = f'ALERTS{{alertstate="firing", model="{MODEL}"}}'
            until(lambda: {alert["metric"]["alertname"] for alert in query(firing)} == due)
            dashboard = json.loads((OBSERVABILITY / "grafana/dashboard.json").read_text(encoding="utf-8"))
            for expression in (target["expr"] for panel in dashboard["panels"] for target in panel["targets"]):
                if "reflux_" in expression:
                    assert query(expression.replace("$model", ".*")), expression
        finally:
            process.terminate()
            process.wait(60)
