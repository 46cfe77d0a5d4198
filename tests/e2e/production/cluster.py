"""Stands in for a cluster whose machines are all this one: Slurm's ``srun`` and ``scontrol``, Kubeflow's ``kubectl``.

:func:`install` puts the commands into a folder of PATH. They start real processes, with the variables that the real
ones would set, and note in ``cluster.log`` what they started.
"""

import os
import re
import shlex
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

from ruamel.yaml import YAML

_COMMANDS = {"dvc": "-m dvc", "torchrun": "-m torch.distributed.run", "reflux": "-m reflux.flows.cli"}
_STANDING_IN = ("srun", "scontrol", "kubectl")
LOG = "cluster.log"


def install(folder: Path) -> Path:
    """Write the commands, and those of the project's environment, into ``bin`` of a virtual environment's shape."""
    commands = {name: f"{sys.executable} {arguments}" for name, arguments in _COMMANDS.items()}
    commands |= {name: f"{sys.executable} {Path(__file__).resolve()} {name}" for name in _STANDING_IN}
    (folder / "bin").mkdir(parents=True)
    for name, command in ({"python": sys.executable} | commands).items():
        (folder / "bin" / name).write_text(f'#!/bin/sh\nexec {command} "$@"\n', encoding="utf-8")
        (folder / "bin" / name).chmod(0o755)
    (folder / "bin/activate").write_text(f'export PATH="{folder / "bin"}:$PATH"\n', encoding="utf-8")
    return folder


def srun(*arguments: str) -> int:
    """Start the command once on each machine of the job."""
    assert arguments[:2] == ("--ntasks-per-node=1", "--kill-on-bad-exit=1"), arguments
    count, command = int(os.environ["SLURM_JOB_NUM_NODES"]), arguments[2:]
    variables = [{"SLURM_NODEID": str(node), "SLURM_PROCID": str(node)} for node in range(count)]
    return _run_all("srun", command, Path.cwd(), variables)


def scontrol(*arguments: str) -> int:
    """List the host names of the job's machines."""
    assert arguments == ("show", "hostnames", os.environ["SLURM_JOB_NODELIST"]), arguments
    print(*["127.0.0.1"] * int(os.environ["SLURM_JOB_NUM_NODES"]), sep="\n")
    return 0


def kubectl(*arguments: str) -> int:
    """Create a TrainJob, whose pods the trainer's controller starts in the background, or wait for its end."""
    match arguments:
        case ("create", "-f", "-", "-o", "name"):
            text = sys.stdin.read()
            name = YAML(typ="safe").load(text)["metadata"]["generateName"] + uuid.uuid4().hex[:5]
            file = Path(f"{name}.yaml")
            file.write_text(text, encoding="utf-8")
            command = [sys.executable, __file__, "controller", str(file), name]
            subprocess.Popen(command, stdout=sys.stderr)
            print(f"trainjob.trainer.kubeflow.org/{name}")
            return 0
        case ("wait", "--for=condition=Complete", "--timeout=12h", job):
            ended = Path(job.rpartition("/")[2] + ".condition")
            while not ended.exists():
                time.sleep(0.1)
            return int(ended.read_text(encoding="utf-8") != "Complete")
    raise ValueError(arguments)


def controller(file: str, name: str) -> int:
    """Do what Kubeflow's torch plugin and the pods do: the command, once for each node, with torchrun's variables.

    Source: pkg/runtime/framework/plugins/torch/torch.go of kubeflow/trainer (2.x).
    """
    spec = YAML(typ="safe").load(Path(file).read_text(encoding="utf-8"))["spec"]
    trainer = spec["trainer"]
    (node,) = spec["runtimePatches"][0]["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    (container,) = node["template"]["spec"]["template"]["spec"]["containers"]
    (mounted,) = [each["mountPath"] for each in container["volumeMounts"] if each["name"] == "workspace"]
    command = [re.sub(rf"{re.escape(mounted)}\b", str(Path.cwd()), part) for part in trainer["command"]]
    shared = {each["name"]: each["value"] for each in trainer["env"]} | {
        "PET_NNODES": str(trainer["numNodes"]),
        "PET_NPROC_PER_NODE": str(trainer.get("numProcPerNode", "auto")),
        "PET_MASTER_ADDR": "127.0.0.1",
        "PET_MASTER_PORT": os.environ["CLUSTER_PORT"],
    }
    variables = [shared | {"PET_NODE_RANK": str(node)} for node in range(trainer["numNodes"])]
    code = _run_all("pods", command, Path("/"), variables)
    Path(f"{name}.condition").write_text("Failed" if code else "Complete", encoding="utf-8")
    return code


def _run_all(kind: str, command: Sequence[str], folder: Path, variables: list[dict[str, str]]) -> int:
    """Run a command on all machines; when it fails on one, it is ended on the others."""
    with Path(LOG).open("a", encoding="utf-8") as log:
        log.write(f"{kind} {len(variables)}: {shlex.join(command)}\n")
    running = [subprocess.Popen(command, cwd=folder, env=os.environ | own) for own in variables]
    while any(process.poll() is None for process in running):
        if any(process.poll() for process in running):
            for process in running:
                process.terminate()
        time.sleep(0.1)
    return max(abs(process.wait()) for process in running)


if __name__ == "__main__":
    sys.exit(globals()[sys.argv[1]](*sys.argv[2:]))
