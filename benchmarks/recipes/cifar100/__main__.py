"""Run a pair of the CIFAR-100 tables through the whole pipeline; see this folder's README."""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from benchmarks.results import ROOT
from benchmarks.seeds import LEFT_BEHIND
from components.core.models.pixel_model import network, parameter_count
from components.core.params.distill import METHODS
from components.core.params.file import override_params
from components.core.params.sections import Params

PAIRS = ("resnet56:resnet20", "resnet110:resnet32", "resnet32x4:resnet8x4", "wrn_40_2:wrn_16_2", "vgg13_cifar:vgg8")
# What the papers give the labels where it is not 1, and their values for CIFAR-100 that are not the method's defaults.
ENTRIES: dict[str, list[str]] = {
    "kd": ["distill.method={name: kd, temperature: 4, weight: 0.9}", "distill.label_weight=0.1"],
    "logit-standardization": ["distill.label_weight=0.1"],
}


def assignments(pair: str, method: str) -> list[str]:
    """What ``reflux run -S`` is told for a pair and a method."""
    protocol = YAML(typ="safe").load((Path(__file__).parent / "protocol.yaml").read_text(encoding="utf-8"))
    flat = [f"{section}.{key}={json.dumps(value)}" for section, keys in protocol.items() for key, value in keys.items()]
    teacher, student = pair.split(":")
    return [*flat, f"pretrain.model={teacher}", f"student.model={student}", *entry(method)]


def entry(method: str) -> list[str]:
    """The assignments of a method."""
    return [f"distill.method={method}", *ENTRIES.get(method, [])]


def dry_run(folder: Path) -> list[tuple[str, str, Params]]:
    """Check every pair and method as far as that goes without data: the params are taken, the networks are built."""
    found = []
    for pair in PAIRS:
        for net in pair.split(":"):
            network(net, 100, 3)
        for method in METHODS:
            file = folder / "params.yaml"
            shutil.copy(ROOT / "params.yaml", file)
            found.append((pair, method, override_params(assignments(pair, method), file)))
    return found


def main() -> None:
    """Run what is asked for."""
    ask = argparse.ArgumentParser(description=__doc__)
    ask.add_argument("--data", type=Path, help="CIFAR-100 in any layout that ingest.source takes, with its test split")
    ask.add_argument("--pair", choices=PAIRS, default="resnet32x4:resnet8x4")
    ask.add_argument("--method", choices=METHODS, default="kd")
    ask.add_argument("--seed", type=int, default=0)
    ask.add_argument("--dry-run", action="store_true", help="check that every pair and method would run")
    asked = ask.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="reflux-cifar100-"))
    if asked.dry_run:
        for pair, method, params in dry_run(folder):
            sizes = [parameter_count(network(net, 100, 3)) for net in pair.split(":")]
            print(f"{pair} {method}: {sizes[0]:,} and {sizes[1]:,} parameters, {params.student.steps:,} steps")
        shutil.rmtree(folder)
        return
    if asked.data is None or not asked.data.exists():
        sys.exit("Error: name CIFAR-100 with --data, in a layout that ingest.source takes.")
    copy = folder / "reflux"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*LEFT_BEHIND))
    told = [*assignments(asked.pair, asked.method), f"ingest.source={asked.data.resolve()}", f"seed={asked.seed}"]
    command = [sys.executable, "-m", "flows.cli", "run", *(part for one in told for part in ("-S", one))]
    subprocess.run(command, cwd=copy, check=True)
    metrics: dict[str, Any] = json.loads((copy / "artifacts/evaluate/metrics.json").read_text(encoding="utf-8"))
    for name in ("teacher", "student", "control"):
        print(f"{name}: {100 * metrics[name]['accuracy']:.2f} %")
    print(f"Kept: {copy}")


if __name__ == "__main__":
    main()
