"""Runs in the containers of Compose and Kubernetes: what they may write, and what outlives them."""

import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.containers import Container, run_in, why_not
from tests.workspaces import git, make_tiny_project

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(why_not()), reason=why_not())]

INFRA = Path(__file__).parents[3] / "infra"
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
        source, target = mapping.split(":")
        mounts[target] = volume(volumes, source)
    return Container(user, variables | settings(), mounts)


def of_kubernetes(template: str, volumes: Path) -> Container:
    """The container of a run's Job; its claims and the files of its configuration are folders in ``volumes``."""
    content = json.loads((INFRA / f"kubernetes/{template}-job-template.json").read_text(encoding="utf-8"))
    pod = content["job_configuration"]["job_manifest"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["securityContext"]["readOnlyRootFilesystem"]
    known = {each["name"]: each for each in pod["volumes"]}
    (generated,) = [
        generator["files"]
        for generator in read_yaml(INFRA / "kubernetes/kustomization.yaml")["configMapGenerator"]
        if generator["name"] == known["dvc"]["configMap"]["name"]
    ]
    for file in generated:
        name, _, source = file.partition("=")
        Path(volume(volumes, "dvc"), name).write_text((INFRA / "kubernetes" / source).read_text())
    mounts = {
        mount["mountPath"]: None if "emptyDir" in known[mount["name"]] else volume(volumes, mount["name"])
        for mount in container["volumeMounts"]
    }
    read_only = tuple(mount["mountPath"] for mount in container["volumeMounts"] if mount.get("readOnly"))
    plain = {variable["name"]: variable["value"] for variable in container["env"] if "value" in variable}
    variables = of_the_image()[1] | settings() | plain
    return Container(pod["securityContext"]["runAsUser"], variables, mounts, read_only, container["workingDir"])


def with_repository(container: Container, repository: Path) -> Container:
    """The same with what it clones, which comes over the network elsewhere, and with the image's user in its list."""
    users = repository.with_name("passwd")
    users.write_text(f"reflux:x:{container.user}:{container.user}::/home/reflux:/bin/sh\n")
    added = {REPOSITORY: str(repository), "/etc/passwd": str(users)}
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
        container, arguments = of_kubernetes("cpu", tmp_path), []
    container = with_repository(container, repository)
    for outcome, waiting in (("RAN", 0), ("CACHED", 1)):
        done = run_in(container, [sys.executable, "-c", INGEST, *arguments])
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.split() == ["10001", outcome, str(waiting)], done.stderr
