"""The shared stack's files fit the published schemas, agree with each other, and keep secrets where they belong."""

import json
import re
import shutil
import subprocess
from configparser import ConfigParser
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
from check_jsonschema.builtin_schemas import get_builtin_schema
from jsonschema import Draft7Validator
from kubernetes_asyncio import client as kubernetes
from prefect.utilities.templating import apply_values
from prefect_kubernetes.worker import KubernetesWorkerJobConfiguration
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[3]
INFRA = ROOT / "infra"
SERVERS = ("s3", "mlflow", "prefect")
WORKERS = ("cpu-worker", "gpu-worker")
NAMES = {"AWS_ACCESS_KEY_ID", "MLFLOW_S3_ACCESS_KEY_ID"}  # no secrets
OF_WORKERS = {"MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "PREFECT_API_AUTH_STRING"}
OF_WORKERS |= {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
PASSWORDS = re.compile(r"PASSWORD|SECRET|AUTH_STRING|ACCESS_KEY")


def read_env(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.splitlines() if line and not line.startswith("#"))


def read_yaml(path: Path) -> list[Any]:
    return list(YAML(typ="safe").load_all(path.read_text(encoding="utf-8")))


SETTINGS = read_env((INFRA / "settings.env").read_text(encoding="utf-8"))
SECRETS = read_env(subprocess.run([INFRA / "new-secrets"], capture_output=True, text=True, check=True).stdout)
COMPOSE = read_yaml(INFRA / "compose/compose.yaml")[0]
KUSTOMIZATION = read_yaml(INFRA / "kubernetes/kustomization.yaml")[0]
MANIFESTS = [document for name in KUSTOMIZATION["resources"] for document in read_yaml(INFRA / "kubernetes" / name)]
UNITS = sorted((INFRA / "systemd").glob("*.service"))
TEMPLATES = sorted((INFRA / "kubernetes").glob("*-job-template.json"))


DOCKERFILE = (INFRA / "compose/Dockerfile").read_text(encoding="utf-8")


def script(name: str) -> str:
    return (INFRA / "servers" / name).read_text(encoding="utf-8")


def pods() -> dict[str, dict[str, Any]]:
    """The pods that Kubernetes runs, by the name of what makes them."""
    specs = {m["metadata"]["name"]: m["spec"]["template"]["spec"] for m in MANIFESTS if "template" in m.get("spec", {})}
    for path in TEMPLATES:
        job = json.loads(path.read_text(encoding="utf-8"))["job_configuration"]["job_manifest"]
        specs[path.stem] = job["spec"]["template"]["spec"]
    return specs


def secrets_of_pod(pod: dict[str, Any]) -> set[str]:
    variables = [v for c in pod["containers"] for v in c.get("env", ()) if isinstance(v, dict) and "valueFrom" in v]
    assert all(v["valueFrom"]["secretKeyRef"]["name"] == "reflux-secrets" for v in variables)
    return {v["valueFrom"]["secretKeyRef"]["key"] for v in variables}


def needed_by(name: str) -> set[str]:
    """The secrets that a server's script reads."""
    return {secret for secret in SECRETS if re.search(rf"\$\{{?{secret}\b", script(name))}


def filled_in(text: str) -> str:
    """A string of the Compose file with its variables replaced as Compose does."""
    return re.sub(r"\$\{(\w+)(:\?[^}]*)?\}", lambda match: (SETTINGS | SECRETS)[match[1]], text).replace("$$", "$")


def test_compose_fits_the_published_schema():
    errors = list(Draft7Validator(get_builtin_schema("vendor.compose-spec")).iter_errors(COMPOSE))
    assert not errors, errors


def through_kubernetes(written: dict[str, Any]) -> dict[str, Any]:
    """What the models that are made from Kubernetes' published schema take of a manifest: they drop what is unknown."""
    group, _, version = written["apiVersion"].rpartition("/")
    word = group.removesuffix(".k8s.io").removesuffix(".authorization").removesuffix(".networking")
    known = next(m for m in (f"V1{written['kind']}", f"{word}V1{written['kind']}") if hasattr(kubernetes, m))
    assert version == "v1"
    api = kubernetes.ApiClient.__new__(kubernetes.ApiClient)  # without a connection
    api.configuration = kubernetes.Configuration()
    parsed = api._ApiClient__deserialize(written, known)
    return api.sanitize_for_serialization(parsed)


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda m: f"{m['kind']}/{m['metadata']['name']}")
def test_manifests_fit_kubernetes_schema_and_have_no_key_that_it_does_not_know(manifest):
    assert through_kubernetes(manifest) == manifest


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.stem)
def test_runs_are_jobs_that_prefect_and_kubernetes_take_and_that_are_never_repeated(template):
    """Filled in as Prefect's Kubernetes worker does, with the variables' defaults."""
    content = json.loads(template.read_text(encoding="utf-8"))
    variables = content["variables"]["properties"]
    values = {key: known["default"] for key, known in variables.items() if "default" in known}
    used = re.findall(r"\{\{ (\w+) \}\}", json.dumps(content["job_configuration"]))
    assert set(used) == set(variables)
    values |= {"name": "retrain", "env": {"SET_BY": "the deployment"}, "command": "run", "labels": {"run": "1"}}
    made = KubernetesWorkerJobConfiguration(**apply_values(content["job_configuration"], values))
    made._populate_env_in_manifest()
    job = made.job_manifest
    pod = job["spec"]["template"]["spec"]
    for misplaced in ("parallelism", "completions"):  # Prefect wants them there as well; Kubernetes drops them
        assert pod.pop(misplaced) == 1
    pod["containers"][0]["args"] = ["run"]  # Prefect splits them when it has a flow run
    assert through_kubernetes(job) == job
    assert job["spec"]["backoffLimit"] == 0
    assert {"name": "SET_BY", "value": "the deployment"} in pod["containers"][0]["env"]
    gpus = pod["containers"][0]["resources"]["limits"].get("nvidia.com/gpu")
    assert gpus == ("1" if template.name.startswith("gpu") else None)
    assert values["namespace"] == KUSTOMIZATION["namespace"]
    assert values["image"] == SETTINGS["REFLUX_IMAGE"]
    assert values["stream_output"] is False


def test_kustomize_takes_every_manifest_and_finds_every_file():
    there = {path.name for path in (INFRA / "kubernetes").glob("*.yaml")} - {"kustomization.yaml"}
    assert set(KUSTOMIZATION["resources"]) == there
    for generator in KUSTOMIZATION["configMapGenerator"]:
        for file in [*generator.get("envs", ()), *generator.get("files", ())]:
            assert (INFRA / "kubernetes" / file.rpartition("=")[2]).is_file(), file
    assert [g["envs"] for g in KUSTOMIZATION["secretGenerator"]] == [["../secrets.env"]]


def test_all_ways_run_the_same_images_and_scripts():
    ours = {n: p["containers"][0] for n, p in pods().items() if not n.endswith("template")}
    for name in (*SERVERS, *WORKERS, "postgres"):
        service = COMPOSE["services"][name]
        assert filled_in(service["image"]) == ours[name]["image"], name
    images = {filled_in(service["image"]) for service in COMPOSE["services"].values()}
    assert {SETTINGS[key] for key in SETTINGS if key.endswith("_IMAGE")} == images
    units = {unit.name: unit.read_text(encoding="utf-8") for unit in UNITS}
    for name in SERVERS:
        assert COMPOSE["services"][name]["command"] == ours[name]["args"] == [f"infra/servers/{name}"]
        assert f"ExecStart=/opt/reflux/infra/servers/{name}\n" in units[f"reflux-{name}.service"]
    assert f"--tag {SETTINGS['REFLUX_IMAGE']} " in DOCKERFILE


def test_images_of_others_are_named_by_digest():
    """A tag is whatever its registry says today."""
    named = [SETTINGS[key] for key in SETTINGS if key.endswith("_IMAGE") and key != "REFLUX_IMAGE"]
    named += re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
    assert len(named) >= 4
    assert not [image for image in named if not re.search(r":[\w.-]+@sha256:[0-9a-f]{64}$", image)]


def test_pools_ports_buckets_and_databases_are_those_of_the_settings():
    for pool in (SETTINGS["REFLUX_CPU_POOL"], SETTINGS["REFLUX_GPU_POOL"]):
        assert COMPOSE["services"][f"{pool}-worker"]["command"][:2] == ["infra/local/worker", pool]
        arguments = pods()[f"{pool}-worker"]["containers"][0]["args"]
        assert arguments[arguments.index("--pool") + 1] == pool
        assert (INFRA / f"kubernetes/{pool}-job-template.json").is_file()
        assert any(f"infra/local/worker {pool} " in unit.read_text(encoding="utf-8") for unit in UNITS)
    services = {m["metadata"]["name"]: m["spec"]["ports"][0]["port"] for m in MANIFESTS if m["kind"] == "Service"}
    assert services == {
        name: int(SETTINGS[f"REFLUX_{name.upper()}_PORT"]) for name in ("postgres", "s3", "mlflow", "prefect")
    }
    connections = ["-N", SETTINGS["REFLUX_POSTGRES_CONNECTIONS"]]
    assert pods()["postgres"]["containers"][0]["args"] == connections
    assert list(map(filled_in, COMPOSE["services"]["postgres"]["command"])) == connections
    made = dict(re.findall(r"CREATE DATABASE (\w+) OWNER (\w+);", script("postgres-roles")))
    auth = SETTINGS["REFLUX_MLFLOW_AUTH_DATABASE"]
    assert made == {SETTINGS["REFLUX_MLFLOW_DATABASE"]: "mlflow", auth: "mlflow"} | {
        SETTINGS["REFLUX_PREFECT_DATABASE"]: "prefect"
    }
    parser = ConfigParser()
    parser.read(INFRA / "mlflow-auth.ini")
    assert parser["mlflow"]["database_uri"] == f"postgresql:///{auth}"


def test_compose_publishes_on_the_host_of_the_settings_alone_which_is_loopback():
    assert SETTINGS["REFLUX_HOST"] == "127.0.0.1"
    published = {name: service["ports"] for name, service in COMPOSE["services"].items() if "ports" in service}
    assert set(published) == {"postgres", "grafana", *SERVERS}
    for name, ports in published.items():
        port = SETTINGS[f"REFLUX_{name.upper()}_PORT"]
        assert [filled_in(mapping) for mapping in ports] == [f"127.0.0.1:{port}:{port}"]


def test_prefects_metrics_are_on_where_no_other_process_of_the_host_wants_their_port():
    """Prefect's client listens on every address, asks for no login, and ends where its port is taken."""
    assert SETTINGS["PREFECT_SERVER_METRICS_ENABLED"] == "true"
    assert "PREFECT_CLIENT_METRICS_ENABLED" not in SETTINGS, "infra/local and systemd run several workers on a host"
    for name in WORKERS:
        service = COMPOSE["services"][name]
        assert service["environment"]["PREFECT_CLIENT_METRICS_ENABLED"] == "true"
        assert "ports" not in service
        container = pods()[name]["containers"][0]
        assert {"name": "PREFECT_CLIENT_METRICS_ENABLED", "value": "true"} in container["env"]
        assert container["ports"] == [{"name": "metrics", "containerPort": 4201}]
    for deployment in read_yaml(INFRA / "prefect.yaml")[0]["deployments"]:
        variables = deployment["work_pool"]["job_variables"]["env"]
        assert variables["PREFECT_CLIENT_METRICS_ENABLED"] == "false", "a run has its worker's host"


@pytest.mark.parametrize("name", SERVERS)
def test_each_server_is_told_its_own_secrets_and_no_other(name):
    needed = needed_by(name)
    compose = {key for key in COMPOSE["services"][name]["environment"] if key in SECRETS}
    assert compose == secrets_of_pod(pods()[name]) == needed
    unit = (INFRA / f"systemd/reflux-{name}.service").read_text(encoding="utf-8")
    unset = set(re.search(r"^UnsetEnvironment=(.*)$", unit, re.MULTILINE)[1].split())
    assert unset == {secret for secret in SECRETS if PASSWORDS.search(secret)} - needed - NAMES


def test_workers_and_runs_are_told_neither_mlflows_administrator_nor_its_key_of_s3():
    for name in WORKERS:
        assert {key for key in COMPOSE["services"][name]["environment"] if key in SECRETS} == OF_WORKERS
        assert secrets_of_pod(pods()[name]) == {"PREFECT_API_AUTH_STRING"}
    for template in TEMPLATES:
        assert secrets_of_pod(pods()[template.stem]) == OF_WORKERS - {"PREFECT_API_AUTH_STRING"}
    for unit in (INFRA / "systemd").glob("*worker*.service"):
        unset = re.search(r"^UnsetEnvironment=(.*)$", unit.read_text(encoding="utf-8"), re.MULTILINE)[1].split()
        assert set(unset) == {secret for secret in SECRETS if PASSWORDS.search(secret)} - OF_WORKERS - NAMES


def test_no_secret_has_a_value_in_a_file_of_git():
    for name, service in COMPOSE["services"].items():
        for key, value in service.get("environment", {}).items():
            assert not PASSWORDS.search(key) or re.fullmatch(r"\$\{\w+:\?[^}]*\}", value), (name, key)
    for name, pod in pods().items():
        for container in pod["containers"]:
            plain = [v["name"] for v in container.get("env", ()) if isinstance(v, dict) and "value" in v]
            assert not [key for key in plain if PASSWORDS.search(key) and "_SECRET_" not in key], name
    assert not [key for key in SETTINGS if PASSWORDS.search(key)]
    assert "infra/secrets.env" in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    assert "infra/secrets.env" in (INFRA / "compose/Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()


def test_secrets_are_new_each_time_and_long():
    again = read_env(subprocess.run([INFRA / "new-secrets"], capture_output=True, text=True, check=True).stdout)
    same = {key for key in SECRETS if again[key] == SECRETS[key]}
    assert same == {"MLFLOW_TRACKING_USERNAME"} | NAMES
    assert all(len(value) >= 48 for key, value in SECRETS.items() if key not in same)


@pytest.mark.parametrize("name", COMPOSE["services"])
def test_services_have_no_rights_and_write_their_volumes_alone(name):
    service = COMPOSE["services"][name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert not {"cap_add", "privileged", "pid", "network_mode", "devices"} & set(service)
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "/tmp" in service["tmpfs"]  # noqa: S108
    writes = {mapping.split(":")[1] for mapping in service.get("volumes", ()) if not mapping.endswith(":ro")}
    if filled_in(service["image"]) == SETTINGS["REFLUX_IMAGE"]:  # a new volume has its folder's owner
        made = re.search(r"^RUN install --directory --owner reflux .*$", DOCKERFILE, re.MULTILINE)[0].split()
        assert writes <= set(made), name
    assert not {mapping for mapping in service.get("volumes", ()) if "docker.sock" in mapping}


@pytest.mark.parametrize("name", sorted(pods()))
def test_pods_run_unprivileged_within_limits(name):
    pod = pods()[name]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in pod["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert {"cpu", "memory"} <= set(container["resources"]["limits"])
        if container["image"] == SETTINGS["REFLUX_IMAGE"]:
            assert pod["enableServiceLinks"] is False  # it would set MLFLOW_PORT, which MLflow reads as its own


Peer = dict[str, str] | str  # a pod's labels, or an address outside


def chosen(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    """Whether a selector of labels chooses a pod."""
    holds = {
        "In": lambda key, values: labels.get(key) in values,
        "NotIn": lambda key, values: labels.get(key) not in values,
        "DoesNotExist": lambda key, _: key not in labels,
    }
    by_value = selector.get("matchLabels", {}).items() <= labels.items()
    rules = selector.get("matchExpressions", ())
    return by_value and all(holds[rule["operator"]](rule["key"], rule.get("values")) for rule in rules)


def is_peer(rule: dict[str, Any], peer: Peer) -> bool:
    if "ipBlock" in rule:
        block = rule["ipBlock"]
        inside = [ip_network(net) for net in block.get("except", ())]
        return isinstance(peer, str) and not any(ip_address(peer) in net for net in inside)
    return isinstance(peer, dict) and "namespaceSelector" not in rule and chosen(rule["podSelector"], peer)


def allowed(direction: str, pod: dict[str, str], peer: Peer, port: int) -> bool:
    """Whether the policies let a pod of the namespace send to a peer, or receive from it."""
    policies = [m["spec"] for m in MANIFESTS if m["kind"] == "NetworkPolicy"]
    over = [policy for policy in policies if direction in policy["policyTypes"] and chosen(policy["podSelector"], pod)]
    word = {"Egress": "to", "Ingress": "from"}[direction]
    rules = [rule for policy in over for rule in policy.get(direction.lower(), ())]
    return not over or any(
        any(is_peer(each, peer) for each in rule[word])
        and ("ports" not in rule or port in [each["port"] for each in rule["ports"]])
        for rule in rules
    )


def test_each_pod_reaches_what_it_needs_and_nothing_else():
    labels = {name: {"app": name} for name in (*SERVERS, *WORKERS, "postgres")} | {"run": {"flow-run": "1"}}
    ports = {"postgres": 5432, "s3": 8333, "mlflow": 5000, "prefect": 4200}
    reached = {
        (name, server)
        for name, pod in labels.items()
        for server, port in ports.items()
        if name != server
        and allowed("Egress", pod, labels[server], port)
        and allowed("Ingress", labels[server], pod, port)
    }
    assert reached == {
        ("mlflow", "postgres"),
        ("mlflow", "s3"),
        ("prefect", "postgres"),
        *((worker, "prefect") for worker in WORKERS),
        *(("run", server) for server in SERVERS),
    }
    outside = {"world": "203.0.113.9", "cluster": "10.0.0.1", "credentials of the machine": "169.254.169.254"}
    for name, pod in labels.items():
        open_to = {place for place, address in outside.items() if allowed("Egress", pod, address, 443)}
        assert open_to == (
            {"world", "cluster"} if name in WORKERS else {"world"} if name in ("run", "prefect") else set()
        ), name
        assert not allowed("Egress", pod, "203.0.113.9", 80), name
        assert not allowed("Egress", pod, "169.254.169.254", 80), name
    template = json.loads(TEMPLATES[0].read_text(encoding="utf-8"))["job_configuration"]["job_manifest"]["spec"]
    assert "app" not in template["template"].get("metadata", {}).get("labels", {}), "runs are those without it"


def test_scripts_are_sh():
    for path in (*(INFRA / "servers").iterdir(), INFRA / "new-secrets"):
        subprocess.run(["sh", "-n", str(path)], check=True)
        assert path.stat().st_mode & 0o111, path


def test_systemd_takes_the_units(tmp_path):
    if not shutil.which("systemd-analyze"):
        pytest.skip("NO SYSTEMD: systemd-analyze is not here, so nobody has parsed the units")
    for unit in UNITS:
        text = unit.read_text(encoding="utf-8").replace("/opt/reflux/infra", str(INFRA))
        (tmp_path / unit.name).write_text(text, encoding="utf-8")
    command = ["systemd-analyze", "verify", "--man=no", *sorted(map(str, tmp_path.iterdir()))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_units_restart_stay_within_memory_and_end_what_they_started(unit):
    text = unit.read_text(encoding="utf-8")
    for line in ("Restart=always", "KillMode=control-group", "NoNewPrivileges=yes", "ProtectSystem=strict"):
        assert f"\n{line}\n" in text
    assert re.search(r"^MemoryMax=\d+G$", text, re.MULTILINE)
    assert "EnvironmentFile=/etc/reflux/secrets.env" in text
    assert not PASSWORDS.search(re.sub(r"(?m)^UnsetEnvironment=.*$", "", text))
