"""Runs in the containers of Compose and Kubernetes: what they may write, and what outlives them."""

import json
import os
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests
from ruamel.yaml import YAML

from reflux.flows.local.prefect_server import free_port
from tests.containers import Container, run_in, start_in, why_not
from tests.servers import has_postgres
from tests.workspaces import git, make_tiny_project, until

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(why_not()), reason=why_not())]

INFRA = Path(__file__).parents[3] / "infra"
BIN = Path(sys.executable).parent
REPOSITORY = "/srv/repository"
INGEST = """
import logging, os, subprocess, sys, tempfile
from pathlib import Path
from infra.local.worker import prepare
from reflux.components.core.params.file import load_params
from reflux.components.core.runtime import installed
from reflux.components.core.runtime.journal import COURIER_VARIABLE, OUTBOX
from reflux.flows.local.environment import keep_home
from reflux.flows.repo.checkout import dvc, prepare_dvc
from reflux.flows.repo.stages import Runner
from reflux.flows.report.display import Display

if sys.argv[1:]:
    os.environ.update(prepare(sys.argv[1], Path(sys.argv[3])))
    tempfile.tempdir = None
os.chdir(tempfile.mkdtemp())
subprocess.run(["git", "clone", "--quiet", "/srv/repository", "clone"], check=True)
os.chdir("clone")
keep_home("shapes", "a run")
prepare_dvc()
installed.record(load_params(), ["ingest"])
before = len(list(OUTBOX.glob("*/journal.jsonl")))
away = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9", COURIER_VARIABLE: "1"}
with Runner(Display(lambda _: None, logging.getLogger()), away) as runner:
    outcome = runner.run("ingest").name
status, lines = dvc("status", "ingest")
assert status == 0, lines
print(os.getuid(), outcome, before)
for forbidden in (sys.prefix, "/var/tmp", "/etc", "/srv/repository"):
    try:
        Path(forbidden, "written").touch()
    except OSError:
        continue
    raise AssertionError(forbidden)
"""


def answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=5).ok
    except requests.RequestException:
        return False


def read_yaml(path: Path) -> Any:
    return YAML(typ="safe").load(path.read_text(encoding="utf-8"))


def settings() -> dict[str, str]:
    lines = (INFRA / "settings.env").read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def of_the_image() -> tuple[int, dict[str, str]]:
    """The user of the image, and its variables but that of the interpreter, which is this machine's."""
    text = (INFRA / "compose/Dockerfile").read_text(encoding="utf-8")
    variables = dict(pair.split("=", 1) for pair in re.search(r"^ENV (.*)$", text, re.MULTILINE)[1].split())
    return int(re.search(r"^USER (\d+)$", text, re.MULTILINE)[1]), variables | {"PYTHON": sys.executable}


def volume(folder: Path, name: str) -> str:
    (folder / name).mkdir(exist_ok=True)
    return str(folder / name)


def of_compose(name: str, volumes: Path) -> Container:
    """A service of Compose's file; its named volumes are folders in ``volumes``."""
    service = read_yaml(INFRA / "compose/compose.yaml")["services"][name]
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    user, variables = of_the_image()
    mounts: dict[str, str | None] = dict.fromkeys([*service["tmpfs"], "/dev/shm"])  # noqa: S108
    for mapping in service["volumes"]:
        source, target, *read_only = mapping.split(":")
        if not read_only:
            mounts[target] = volume(volumes, source)
    return Container(int(str(service.get("user", user)).partition(":")[0]), variables | settings(), mounts)


def of_a_job(template: str, volumes: Path) -> Container:
    """The container of a run's Job."""
    content = json.loads((INFRA / f"kubernetes/{template}-job-template.json").read_text(encoding="utf-8"))
    return of_kubernetes(content["job_configuration"]["job_manifest"]["spec"]["template"]["spec"], volumes)


def of_a_server(name: str, volumes: Path) -> Container:
    """The container of a server on Kubernetes."""
    documents = YAML(typ="safe").load_all((INFRA / f"kubernetes/{name}.yaml").read_text(encoding="utf-8"))
    (pod,) = [each["spec"]["template"]["spec"] for each in documents if "template" in each["spec"]]
    return of_kubernetes(pod, volumes)


def of_kubernetes(pod: dict[str, Any], volumes: Path) -> Container:
    """The container of a pod; its claims and the files of its configuration are folders in ``volumes``."""
    (container,) = pod["containers"]
    assert container["securityContext"]["readOnlyRootFilesystem"]
    known = {each["name"]: each for each in pod["volumes"]}
    generated = {
        generator["name"]: generator.get("files", ())
        for generator in read_yaml(INFRA / "kubernetes/kustomization.yaml")["configMapGenerator"]
    }
    for name, each in known.items():
        for file in generated[each["configMap"]["name"]] if "configMap" in each else ():
            key, _, source = file.rpartition("=")
            path = INFRA / "kubernetes" / source
            Path(volume(volumes, name), key or path.name).write_text(path.read_text())
    mounts = {
        mount["mountPath"]: None if "emptyDir" in known.get(mount["name"], {}) else volume(volumes, mount["name"])
        for mount in container["volumeMounts"]
    }
    read_only = tuple(mount["mountPath"] for mount in container["volumeMounts"] if mount.get("readOnly"))
    plain = {variable["name"]: variable["value"] for variable in container["env"] if "value" in variable}
    variables = of_the_image()[1] | settings() | plain
    return Container(
        pod["securityContext"]["runAsUser"], variables, mounts, read_only, container.get("workingDir", "/")
    )


def with_folder(container: Container, there: str, folder: Path) -> Container:
    """The same with a folder that it reads, and with its user in the list of users."""
    users = folder.with_name("passwd")
    users.write_text(f"reflux:x:{container.user}:{container.user}::/home/reflux:/bin/sh\n")
    added = {there: str(folder), "/etc/passwd": str(users)}
    return replace(
        container,
        variables=container.variables | {"PYTHONPATH": f"{INFRA.parent}"},
        volumes=container.volumes | added,
        read_only=(*container.read_only, *added),
    )


@pytest.fixture(scope="module")
def repository(tmp_path_factory) -> Path:
    made = make_tiny_project(tmp_path_factory.mktemp("repository") / "shapes")
    git(made, "init", "-q", "-b", "main")
    git(made, "add", ".")
    git(made, "commit", "-qm", "one")
    return made


@pytest.mark.parametrize("way", ["compose", "kubernetes"])
def test_a_run_works_in_its_container_and_what_waits_for_mlflow_outlives_it(repository, tmp_path, way):
    if way == "compose":
        worker = read_yaml(INFRA / "compose/compose.yaml")["services"]["cpu-worker"]["command"]
        assert worker[0] == "infra/local/worker"
        container, arguments = of_compose("cpu-worker", tmp_path), worker[1:]
    else:
        container, arguments = of_a_job("cpu", tmp_path), []
    container = with_folder(container, REPOSITORY, repository)  # elsewhere it comes over the network
    for outcome, waiting in (("RAN", 0), ("CACHED", 1)):
        done = run_in(container, [sys.executable, "-c", INGEST, *arguments])
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.split() == ["10001", outcome, str(waiting)], done.stderr


@pytest.mark.parametrize("make", [of_compose, of_a_server])
def test_s3_answers_from_its_container(tmp_path, make):
    (tmp_path / "code").symlink_to(INFRA.parent)
    container = with_folder(make("s3", tmp_path), "/opt/reflux", tmp_path / "code")
    port = next(low for _ in range(1000) if (low := free_port()) < 50_000)  # it adds 10,000
    names = [f"{owner}_{part}" for owner in ("AWS", "MLFLOW_S3") for part in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY")]
    keys = {name: name.lower() for name in names}
    chosen = {"REFLUX_S3_PORT": str(port), "REFLUX_HOST": "127.0.0.1", "PATH": f"{BIN}:{os.environ['PATH']}"} | keys
    container = replace(container, variables=container.variables | chosen, workdir="/opt/reflux")
    server = start_in(container, ["infra/servers/s3"], tmp_path / "log")
    try:
        until(lambda: server.poll() is not None or answers(f"http://127.0.0.1:{port}/healthz"), 60)
        assert server.poll() is None, (tmp_path / "log").read_text()
    finally:
        server.terminate()
        server.wait(60)


@pytest.mark.skipif(not has_postgres(), reason="NO POSTGRES: install Debian's postgresql")
@pytest.mark.parametrize("make", [of_compose, of_a_server])
def test_postgres_works_in_its_container(tmp_path, make):
    """By its programs alone: the script of its image, which calls them, is not here."""
    container = with_folder(make("postgres", tmp_path), "/srv/nothing", tmp_path)
    port, data = free_port(), container.variables.get("PGDATA", "/var/lib/postgresql/data")
    server = f"-k /var/run/postgresql -h 127.0.0.1 -p {port}"
    steps = (
        f"initdb -D {data} -U postgres --no-sync >/tmp/initdb",
        f"pg_ctl -D {data} -w -l /tmp/log -o '{server}' start >/dev/null",
        f"psql -h /var/run/postgresql -p {port} -U postgres -Atc 'SELECT current_user'",
        f"pg_ctl -D {data} -w -m fast stop >/dev/null",
    )
    done = run_in(container, ["sh", "-c", " && ".join(steps) + " || cat /tmp/log /tmp/initdb >&2"])
    assert done.stdout == "postgres\n", done.stderr
