"""The containers that Compose's file and Kubernetes' manifests describe, with folders of the test for their volumes."""

import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from tests.containers import Container

INFRA = Path(__file__).parents[1] / "infra"


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


def compose_service(name: str) -> dict[str, Any]:
    """A service of Compose's file."""
    service: dict[str, Any] = read_yaml(INFRA / "compose/compose.yaml")["services"][name]
    return service


def of_compose(name: str, volumes: Path) -> Container:
    """A service of Compose's file; its named volumes are folders in ``volumes``."""
    service = compose_service(name)
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
