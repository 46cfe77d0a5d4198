"""The alert rules, the dashboard and their page know the metrics that there are, and each rule fires when it should."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from reflux.components.observe.exporter.collector import HELP

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "infra/observability"
PAGE = (FOLDER / "README.md").read_text(encoding="utf-8")
RULES = YAML(typ="safe").load((FOLDER / "alerts.yaml").read_text(encoding="utf-8"))["groups"][0]["rules"]
DASHBOARD = json.loads((FOLDER / "grafana/dashboard.json").read_text(encoding="utf-8"))
QUERIES = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
COMPOSE = YAML(typ="safe").load((ROOT / "infra/compose/compose.yaml").read_text(encoding="utf-8"))["services"]

DAY = 86_400
MODEL = '{model="shapes", job="reflux"}'
# What makes each rule fire, and what does not.
CASES: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "RefluxMetricsMissing": ({'up{job="reflux"}': "0x2000"}, {'up{job="reflux"}': "1x2000"}),
    "RefluxMLflowAway": ({f"reflux_up{MODEL}": "0x2000"}, {f"reflux_up{MODEL}": "1x2000"}),
    "RefluxChampionTooOld": (
        {f"reflux_champion_age_seconds{MODEL}": f"{31 * DAY}x2000"},
        {f"reflux_champion_age_seconds{MODEL}": f"{29 * DAY}x2000"},
    ),
    "RefluxRetrainFailed": (
        {'reflux_last_retrain{model="shapes", status="FAILED"}': "1x2000"},
        {
            'reflux_last_retrain{model="shapes", status="FAILED"}': "0x2000",
            'reflux_last_retrain{model="shapes", status="KILLED"}': "1x2000",
        },
    ),
    "RefluxRetrainMissing": (
        {f"reflux_last_retrain_end_timestamp_seconds{MODEL}": f"{-7 * DAY}x2000"},
        {f"reflux_last_retrain_end_timestamp_seconds{MODEL}": f"{-6 * DAY}x2000"},
    ),
    "RefluxDataDrift": ({f"reflux_drift_detected{MODEL}": "1x2000"}, {f"reflux_drift_detected{MODEL}": "0x2000"}),
    "RefluxAccuracyBelowGate": (
        {f"reflux_champion_accuracy_ratio{MODEL}": "0.79x2000", f"reflux_accuracy_gate_ratio{MODEL}": "0.8x2000"},
        {f"reflux_champion_accuracy_ratio{MODEL}": "0.8x2000", f"reflux_accuracy_gate_ratio{MODEL}": "0.8x2000"},
    ),
    "RefluxAttemptOpen": (
        {f"reflux_open_attempt_age_seconds{MODEL}": "960x2000"},
        {f"reflux_open_attempt_age_seconds{MODEL}": "840x2000"},
    ),
    "RefluxAttemptFailed": (
        {f"reflux_last_failed_attempt_timestamp_seconds{MODEL}": "0x2000"},
        {f"reflux_last_failed_attempt_timestamp_seconds{MODEL}": f"{-2 * DAY}x2000"},
    ),
    "RefluxAliasMovedByHand": (
        {f"reflux_aliases_moved_by_hand{MODEL}": "1x2000"},
        # A promotion that is at work moves an alias for a moment before the ledger has it.
        {f"reflux_aliases_moved_by_hand{MODEL}": "0x20 1x4 0x2000"},
    ),
    "RefluxEventsWaiting": (
        {f"reflux_event_age_seconds{MODEL}": "3700x2000"},
        {f"reflux_event_age_seconds{MODEL}": "3500x2000"},
    ),
    "RefluxEventsRefused": ({f"reflux_events_refused{MODEL}": "1x2000"}, {f"reflux_events_refused{MODEL}": "0x2000"}),
}


def named(text: str) -> set[str]:
    """The metrics of Reflux that a text names."""
    return set(re.findall(r"\breflux_\w+", text))


def test_rules_and_dashboard_ask_for_metrics_that_there_are_and_the_page_explains_all_of_them():
    asked = named(" ".join([*(rule["expr"] for rule in RULES), *QUERIES]))
    assert asked <= set(HELP)
    assert set(re.findall(r"^\| `(reflux_\w+)", PAGE, re.MULTILINE)) == set(HELP)


def test_the_page_says_of_each_alert_what_to_do():
    assert re.findall(r"^\| `(Reflux\w+)", PAGE, re.MULTILINE) == [rule["alert"] for rule in RULES]
    assert list(CASES) == [rule["alert"] for rule in RULES]


def test_panels_fill_their_rows_and_do_not_overlap():
    taken: dict[tuple[int, int], int] = {}
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert (x, y) not in taken, panel["title"]
                taken[x, y] = panel["id"]
    assert len(taken) == 24 * (1 + max(y for _, y in taken))
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def interpolated(text: str, **variables: str) -> str:
    """Fill variables in as Compose does, whose ${NAME:+text} is that of shells."""
    return subprocess.run(
        ["sh", "-c", f'printf %s "{text}"'], env=variables, capture_output=True, text=True, check=True
    ).stdout


def test_the_exporter_in_compose_takes_the_params_of_the_pipeline_that_is_named():
    mount, _ = COMPOSE["metrics"]["volumes"]
    assert interpolated(mount) == "../../params.yaml:/srv/project/params.yaml:ro"
    named = interpolated(mount, REFLUX_PIPELINE="birds")
    assert named == "../../pipelines/birds/params.yaml:/srv/project/params.yaml:ro"


def test_compose_starts_them_only_where_they_are_asked_for_and_mounts_what_there_is():
    profiles = {name: service.get("profiles") for name, service in COMPOSE.items()}
    ours = [name for name, profile in profiles.items() if profile == ["observability"]]
    assert ours == ["metrics", "prometheus", "grafana"]
    for name in ours:
        for mount in COMPOSE[name]["volumes"]:
            source = interpolated(mount).partition(":")[0]
            assert not source.startswith(".") or (ROOT / "infra/compose" / source).is_file(), mount
    config = YAML(typ="safe").load((FOLDER / "prometheus.yaml").read_text(encoding="utf-8"))
    targets = {
        target for job in config["scrape_configs"] for each in job["static_configs"] for target in each["targets"]
    }
    assert {target.partition(":")[0] for target in targets} <= set(COMPOSE)
    assert f"metrics:{COMPOSE['metrics']['command'][-1]}" in targets


def promtool(folder: Path, command: str, kind: str, file: str) -> str:
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("NO PROMTOOL: install Debian's prometheus to check the alert rules")
    done = subprocess.run([program, command, kind, file], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_prometheus_takes_the_rules_and_the_configuration(tmp_path):
    promtool(FOLDER, "check", "rules", "alerts.yaml")
    config = (FOLDER / "prometheus.yaml").read_text(encoding="utf-8")
    (tmp_path / "password").touch()
    shutil.copy(FOLDER / "alerts.yaml", tmp_path)
    (tmp_path / "prometheus.yaml").write_text(re.sub(r"password_file: \S+}", "password_file: password}", config))
    promtool(tmp_path, "check", "config", "prometheus.yaml")


@pytest.mark.parametrize("alert", CASES)
def test_a_rule_fires_when_it_should_and_not_before(tmp_path, alert):
    fires, quiet = CASES[alert]

    def case(series: dict[str, str], fired: bool) -> dict[str, Any]:
        samples = {"exp_samples": [{"labels": "{}", "value": 1}]} if fired else {}
        query = f'count(ALERTS{{alertname="{alert}", alertstate="firing"}})'
        return {
            "interval": "1m",
            "input_series": [{"series": name, "values": values} for name, values in series.items()],
            "promql_expr_test": [{"expr": query, "eval_time": "30m", **samples}],
        }

    shutil.copy(FOLDER / "alerts.yaml", tmp_path)
    tests = {
        "rule_files": ["alerts.yaml"],
        "evaluation_interval": "1m",
        "tests": [case(fires, True), case(quiet, False)],
    }
    YAML(typ="safe").dump(tests, tmp_path / "tests.yaml")
    assert "SUCCESS" in promtool(tmp_path, "test", "rules", "tests.yaml")
